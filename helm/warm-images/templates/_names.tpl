{{/* Names, labels and images. */}}

{{- define "warm-images.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is put behind it. */}}
{{- define "warm-images.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "warm-images.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "warm-images.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name and metadata of an object. Of a list: root, component, suffix of the name. */}}
{{- define "warm-images.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "warm-images.fullname" $root }}-{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "warm-images.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{/* The same for an object of the whole cluster. */}}
{{- define "warm-images.clusterMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "warm-images.fullname" $root }}-{{ index . 2 }}
labels:
  {{- include "warm-images.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{/* Of a list: root, component. */}}
{{- define "warm-images.labels" -}}
{{- $root := index . 0 -}}
{{ include "warm-images.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: warm-images
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of pods: without versions, so that a release that changes nothing of a pod restarts none. Of a list: root, component. */}}
{{- define "warm-images.podLabels" -}}
{{ include "warm-images.selector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What never changes, for selectors. Of a list: root, component. */}}
{{- define "warm-images.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "warm-images.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The image of controller or agent. Of a list: root, its values. */}}
{{- define "warm-images.image" -}}
{{- $root := index . 0 -}}
{{- $image := (index . 1).image -}}
{{- $registry := $root.Values.global.imageRegistry | default $root.Values.image.registry -}}
{{- $name := printf "%s/%s" $registry $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (coalesce $image.tag $root.Values.image.tag $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Of a list: root, its values, component. */}}
{{- define "warm-images.serviceAccount" -}}
{{- $account := (index . 1).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "warm-images.fullname" (index . 0)) (index . 2)) -}}
{{- else -}}
{{- $account.name | required (printf "%s.serviceAccount.create is false: name the service account in %s.serviceAccount.name" (index . 2) (index . 2)) -}}
{{- end -}}
{{- end -}}

{{/* The Lease of the election. */}}
{{- define "warm-images.lease" -}}
{{- dig "leader" "leaseName" (printf "%s-controller" (include "warm-images.fullname" .)) .Values.config.controller -}}
{{- end -}}
