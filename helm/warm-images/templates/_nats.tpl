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

{{/* "true" where agents log in by token: NATS asks the controllers who they are. */}}
{{- define "warm-images.nats.callout" -}}
{{- if include "warm-images.nats.embedded" . -}}
{{- if eq .Values.nats.embedded.auth "callout" -}}true{{- end -}}
{{- else if .Values.nats.external.callout.existingSecret -}}true{{- end -}}
{{- end -}}

{{/* A Secret of the embedded NATS. Of a list: root, which of `existingSecrets`. What Helm makes and what `init-nats` makes
     have other names: Helm would take away what it made when it makes it no more. */}}
{{- define "warm-images.nats.secret" -}}
{{- $root := index . 0 -}}
{{- $which := index . 1 -}}
{{- $name := $which -}}
{{- if and (eq $which "people") (include "warm-images.nats.callout" $root) -}}{{- $name = "users" -}}{{- end -}}
{{- index $root.Values.nats.embedded.existingSecrets $which | default (printf "%s-nats-%s" (include "warm-images.fullname" $root) $name) -}}
{{- end -}}

{{/* Annotations of the hook that makes keys. Of: weight. What failed stays, to be looked at. */}}
{{- define "warm-images.nats.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Secrets that `init-nats` makes, as a JSON map from its argument to the name. */}}
{{- define "warm-images.nats.made" -}}
{{- $made := dict -}}
{{- if and (include "warm-images.nats.embedded" .) (include "warm-images.nats.callout" .) -}}
{{- $own := .Values.nats.embedded.existingSecrets -}}
{{- if ne (empty $own.identity) (empty $own.server) -}}
{{- fail "nats.embedded.existingSecrets: identity and server belong together: give both or neither" -}}
{{- end -}}
{{- range $argument, $which := dict "identity" "identity" "server" "server" "users" "people" -}}
{{- if not (index $own $which) -}}
{{- $_ := set $made $argument (include "warm-images.nats.secret" (list $ $which)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $made | toJson -}}
{{- end -}}

{{/* Where the controllers have the seeds of the callout, as JSON: secret, and files by key of the configuration. */}}
{{- define "warm-images.nats.seeds" -}}
{{- if include "warm-images.nats.callout" . -}}
{{- if include "warm-images.nats.embedded" . -}}
{{- dict "secret" (include "warm-images.nats.secret" (list . "identity")) "files" (dict "nkeySeedFile" "callout" "issuerSeedFile" "issuer" "xkeySeedFile" "xkey") | toJson -}}
{{- else -}}
{{- $callout := .Values.nats.external.callout -}}
{{- dict "secret" $callout.existingSecret "files" (dict "nkeySeedFile" $callout.userKey "issuerSeedFile" $callout.issuerKey "xkeySeedFile" $callout.xkeyKey) | toJson -}}
{{- end -}}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{/* The `identity:` section of the controller, as JSON. */}}
{{- define "warm-images.nats.identity" -}}
{{- $identity := dict -}}
{{- range $key, $file := (include "warm-images.nats.seeds" . | fromJson).files -}}
{{- $_ := set $identity $key (printf "/run/warm-images/nats-seeds/%s" $file) -}}
{{- end -}}
{{- if $identity -}}
{{- $_ := set $identity "namespace" .Release.Namespace -}}
{{- $_ := set $identity "serviceAccount" (include "warm-images.serviceAccount" (list . .Values.agent "agent")) -}}
{{- if not (include "warm-images.nats.embedded" .) -}}
{{- $_ := set $identity "account" .Values.nats.external.callout.account -}}
{{- end -}}
{{- end -}}
{{- $identity | toJson -}}
{{- end -}}

{{/* The audience of the agents' tokens. */}}
{{- define "warm-images.nats.audience" -}}
{{- dig "identity" "audience" "warm-images" .Values.config.controller -}}
{{- end -}}

{{/* How `controller` or `agent` logs in, as JSON: secret, file, key, and what stands in the configuration; or isToken. Of a
     list: root, component. */}}
{{- define "warm-images.nats.login" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $nats := $root.Values.nats -}}
{{- $external := index $nats.external $component -}}
{{- $token := dict "isToken" true "config" (dict "tokenFile" "/run/warm-images/nats/token") -}}
{{- if and (include "warm-images.nats.embedded" $root) (include "warm-images.nats.callout" $root) -}}
{{- if eq $component "agent" -}}
{{- $token | toJson -}}
{{- else -}}
{{- dict "config" (dict "nkeySeedFile" "/run/warm-images/nats/nkey") "secret" (include "warm-images.nats.secret" (list $root "identity")) "key" "controller" "file" "nkey" | toJson -}}
{{- end -}}
{{- else if include "warm-images.nats.embedded" $root -}}
{{- dict "config" (dict "user" $component "passwordFile" "/run/warm-images/nats/password") "secret" (include "warm-images.nats.secret" .) "key" "password" "file" "password" | toJson -}}
{{- else if and (eq $component "agent") (include "warm-images.nats.callout" $root) -}}
{{- if or $external.existingSecret $external.user $external.credsKey -}}
{{- fail "nats.external.agent stands beside nats.external.callout: agents log in by token; remove one of the two" -}}
{{- end -}}
{{- $token | toJson -}}
{{- else if $nats.url -}}
{{- if $nats.username -}}
{{- dict "config" (dict "user" $nats.username "passwordFile" "/run/warm-images/nats/password") "secret" (printf "%s-nats-login" (include "warm-images.fullname" $root)) "key" "password" "file" "password" | toJson -}}
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
{{- dict "config" (dict "user" $login.user "passwordFile" "/run/warm-images/nats/password") "secret" $login.existingSecret "key" $login.passwordKey "file" "password" | toJson -}}
{{- else if $login.credsKey -}}
{{- dict "config" (dict "credsFile" "/run/warm-images/nats/creds") "secret" $login.existingSecret "key" $login.credsKey "file" "creds" | toJson -}}
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
{{- $_ := merge $config ($login.config | default dict) -}}
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
        path: {{ $login.file }}
{{- end }}
{{- if $login.isToken }}
# The kubelet puts a new one there long before it ends.
- name: nats
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ include "warm-images.nats.audience" (index . 0) }}
          expirationSeconds: 3600
{{- end }}
{{- if eq (index . 1) "controller" }}
{{- with include "warm-images.nats.seeds" (index . 0) | fromJson }}
- name: nats-seeds
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      {{- range $file := values .files | sortAlpha }}
      - key: {{ $file }}
        path: {{ $file }}
      {{- end }}
{{- end }}
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
{{- $login := include "warm-images.nats.login" . | fromJson }}
{{- if or $login.secret $login.isToken }}
- name: nats
  mountPath: /run/warm-images/nats
  readOnly: true
{{- end }}
{{- if and (eq (index . 1) "controller") (include "warm-images.nats.callout" (index . 0)) }}
- name: nats-seeds
  mountPath: /run/warm-images/nats-seeds
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
