{{/* "true" if objects of the Prometheus operator are to be made. */}}
{{- define "warm-images.monitoring.renders" -}}
{{- $isKnown := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
{{- $mode := .Values.monitoring.renderMode -}}
{{- if and (eq $mode "failIfMissing") (not $isKnown) -}}
{{- fail "monitoring.renderMode is failIfMissing, and the API server does not know monitoring.coreos.com/v1: install the Prometheus operator first, or turn off monitoring.enabled and monitoring.rules.enabled" -}}
{{- end -}}
{{- if or $isKnown (eq $mode "alwaysRender") -}}true{{- end -}}
{{- end -}}
