{{/* Which NATS, and how to log in there. */}}

{{/* The external servers as JSON list; empty: the embedded NATS. */}}
{{- define "warm-images.nats.external" -}}
{{- $nats := .Values.nats -}}
{{- if and $nats.url $nats.external.urls -}}
{{- fail "nats.url is the deprecated form of nats.external.urls: remove nats.url" -}}
{{- end -}}
{{- if $nats.url -}}
{{- list $nats.url | toJson -}}
{{- else -}}
{{- $nats.external.urls | toJson -}}
{{- end -}}
{{- end -}}

{{/* "true", or nothing. */}}
{{- define "warm-images.nats.embedded" -}}
{{- if not (include "warm-images.nats.external" . | fromJsonArray) -}}true{{- end -}}
{{- end -}}

{{- define "warm-images.nats.urls" -}}
{{- if include "warm-images.nats.embedded" . -}}
{{- list (printf "nats://%s-nats.%s.svc:4222" (include "warm-images.fullname" .) .Release.Namespace) | toJson -}}
{{- else -}}
{{- include "warm-images.nats.external" . -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the password of a user of the embedded NATS. Of a list: root, which of `existingSecrets`. */}}
{{- define "warm-images.nats.secret" -}}
{{- $root := index . 0 -}}
{{- index $root.Values.nats.embedded.existingSecrets (index . 1) | default (printf "%s-nats-%s" (include "warm-images.fullname" $root) (index . 1)) -}}
{{- end -}}

{{/* How `controller` or `agent` logs in, as JSON: user, secret, key, isCreds. Of a list: root, component. */}}
{{- define "warm-images.nats.login" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $nats := $root.Values.nats -}}
{{- if include "warm-images.nats.embedded" $root -}}
{{- dict "user" $component "secret" (include "warm-images.nats.secret" .) "key" "password" | toJson -}}
{{- else if $nats.url -}}
{{- if $nats.username -}}
{{- dict "user" $nats.username "secret" (printf "%s-nats-login" (include "warm-images.fullname" $root)) "key" "password" | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- else -}}
{{- $login := index $nats.external $component -}}
{{- $at := printf "nats.external.%s" $component -}}
{{- if and $login.user $login.credsKey -}}
{{- fail (printf "%s: user and credsKey exclude each other: keep one" $at) -}}
{{- end -}}
{{- if and (or $login.user $login.credsKey) (not $login.existingSecret) -}}
{{- fail (printf "%s.existingSecret is empty: name the Secret with the password or the credentials file" $at) -}}
{{- end -}}
{{- if and $login.existingSecret (not $login.user) (not $login.credsKey) -}}
{{- fail (printf "%s: give user (with a password) or credsKey (a credentials file) for the Secret" $at) -}}
{{- end -}}
{{- if $login.user -}}
{{- dict "user" $login.user "secret" $login.existingSecret "key" $login.passwordKey | toJson -}}
{{- else if $login.credsKey -}}
{{- dict "secret" $login.existingSecret "key" $login.credsKey "isCreds" true | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys of TLS files that are there, as a JSON map from the configuration's key to the file. */}}
{{- define "warm-images.nats.tls" -}}
{{- $files := dict -}}
{{- if not (include "warm-images.nats.embedded" .) -}}
{{- $tls := .Values.nats.external.tls -}}
{{- if $tls.existingSecret -}}
{{- if ne (empty $tls.certKey) (empty $tls.keyKey) -}}
{{- fail "nats.external.tls: certKey and keyKey belong together: give both or neither" -}}
{{- end -}}
{{- range $key, $file := dict "caFile" $tls.caKey "certFile" $tls.certKey "keyFile" $tls.keyKey -}}
{{- if $file -}}{{- $_ := set $files $key $file -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $files | toJson -}}
{{- end -}}

{{/* The `nats:` section of a configuration file. Of a list: root, component. */}}
{{- define "warm-images.nats.config" -}}
{{- $root := index . 0 -}}
{{- $login := include "warm-images.nats.login" . | fromJson -}}
{{- $config := dict "urls" (include "warm-images.nats.urls" $root | fromJsonArray) -}}
{{- if $login.isCreds -}}
{{- $_ := set $config "credsFile" "/run/warm-images/nats/creds" -}}
{{- else if $login.user -}}
{{- $_ := set $config "user" $login.user -}}
{{- $_ := set $config "passwordFile" "/run/warm-images/nats/password" -}}
{{- end -}}
{{- $tls := dict -}}
{{- range $key, $file := include "warm-images.nats.tls" $root | fromJson -}}
{{- $_ := set $tls $key (printf "/run/warm-images/nats-tls/%s" $file) -}}
{{- end -}}
{{- if and (not (include "warm-images.nats.embedded" $root)) $root.Values.nats.external.tls.required -}}
{{- $_ := set $tls "required" true -}}
{{- end -}}
{{- if $tls -}}{{- $_ := set $config "tls" $tls -}}{{- end -}}
{{- $config | toJson -}}
{{- end -}}

{{/* Volumes with what is needed to log in. Of a list: root, component. */}}
{{- define "warm-images.nats.volumes" -}}
{{- $login := include "warm-images.nats.login" . | fromJson -}}
{{- if $login.secret }}
- name: nats
  secret:
    secretName: {{ $login.secret }}
    defaultMode: 0440
    items:
      - key: {{ $login.key }}
        path: {{ ternary "creds" "password" (hasKey $login "isCreds") }}
{{- end }}
{{- with include "warm-images.nats.tls" (index . 0) | fromJson }}
- name: nats-tls
  secret:
    secretName: {{ (index $ 0).Values.nats.external.tls.existingSecret }}
    defaultMode: 0440
    items:
      {{- range $file := values . | sortAlpha }}
      - key: {{ $file }}
        path: {{ $file }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Their mounts. Of a list: root, component. */}}
{{- define "warm-images.nats.mounts" -}}
{{- if (include "warm-images.nats.login" . | fromJson).secret }}
- name: nats
  mountPath: /run/warm-images/nats
  readOnly: true
{{- end }}
{{- if include "warm-images.nats.tls" (index . 0) | fromJson }}
- name: nats-tls
  mountPath: /run/warm-images/nats-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "warm-images.nats.image" -}}
{{- $image := .Values.nats.embedded.image -}}
{{- $name := printf "%s/%s" (.Values.global.imageRegistry | default $image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name $image.tag -}}
{{- end -}}
{{- end -}}
