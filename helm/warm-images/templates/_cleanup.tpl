{{/* What `helm uninstall` takes away beside the release. */}}

{{/* Annotations of a hook after the deletion. Of: weight. What failed stays, to be looked at. */}}
{{- define "warm-images.cleanup.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Secrets that no manifest of the chart has, as a JSON list. */}}
{{- define "warm-images.cleanup.secrets" -}}
{{- include "warm-images.nats.made" . | fromJson | values | sortAlpha | toJson -}}
{{- end -}}

{{/* "true" where buckets are to go. Those of the embedded NATS go with it. */}}
{{- define "warm-images.cleanup.nats" -}}
{{- if and .Values.cleanup.buckets (not (include "warm-images.nats.embedded" .)) -}}true{{- end -}}
{{- end -}}

{{/* The DaemonSet that takes the agents' state from the hosts. Its pods begin with the removal, which waits for the last
     agent of the node to end; then they are ready and do nothing more. */}}
{{- define "warm-images.cleanup.agents" -}}
{{- $values := .Values.agent -}}
{{- $container := dict
      "image" (include "warm-images.image" (list . $values))
      "imagePullPolicy" .Values.image.pullPolicy
      "resources" $values.resources
      "securityContext" $values.securityContext
      "volumeMounts" (list (dict "name" "state" "mountPath" $values.stateDir)) -}}
{{- $args := list "forget" (printf "--state-dir=%s" $values.stateDir) -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  {{- include "warm-images.metadata" (list . "cleanup" "cleanup") | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "warm-images.selector" (list . "cleanup-agent") | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "warm-images.podLabels" (list . "cleanup-agent") | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- include "warm-images.placement" (list . $values "cleanup-agent") | trim | nindent 6 }}
      terminationGracePeriodSeconds: 0
      securityContext:
        {{- toYaml $values.podSecurityContext | nindent 8 }}
      initContainers:
        - {{- merge (dict "name" "forget" "args" $args) $container | toYaml | nindent 10 }}
      containers:
        - {{- merge (dict "name" "stay" "args" (append $args "--stay")) $container | toYaml | nindent 10 }}
      volumes:
        - name: state
          hostPath:
            path: {{ $values.stateDir }}
            type: DirectoryOrCreate
{{- end -}}
