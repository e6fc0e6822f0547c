{{/* What `helm uninstall` takes away beside the release. */}}

{{/* Annotations of a hook after the deletion. Of: weight. What failed stays, to be looked at. */}}
{{- define "warm-images.cleanup.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Secrets that no manifest of the chart has, as a JSON list. */}}
{{- define "warm-images.cleanup.secrets" -}}
[]
{{- end -}}

{{/* "true" where buckets are to go. Those of the embedded NATS go with it. */}}
{{- define "warm-images.cleanup.nats" -}}
{{- if and .Values.cleanup.buckets (not (include "warm-images.nats.embedded" .)) -}}true{{- end -}}
{{- end -}}
