{{/* The configuration files, as JSON. */}}

{{- define "warm-images.config.common" -}}
{{- $root := index . 0 -}}
{{- $config := $root.Values.config -}}
{{- $port := (index $root.Values (index . 1)).port | int -}}
{{- dict "clusterId" $config.clusterId
      "nats" (include "warm-images.nats.config" . | fromJson)
      "log" $config.log
      "admin" (dict "listen" (printf "%s:%d" $config.listenAddress $port)) | toJson -}}
{{- end -}}

{{/* `select:`, with the deprecated lists. */}}
{{- define "warm-images.config.select" -}}
{{- $select := deepCopy .Values.config.select -}}
{{- with regexSplit "[ ,]+" (trim .Values.list) -1 | compact -}}
{{- $_ := set $select.namespaces "include" . -}}
{{- end -}}
{{- with regexSplit "[ ,]+" (trim .Values.ignore) -1 | compact -}}
{{- $_ := set $select.namespaces "exclude" (concat $select.namespaces.exclude . | uniq) -}}
{{- end -}}
{{- $select | toJson -}}
{{- end -}}

{{- define "warm-images.config.controller" -}}
{{- $config := include "warm-images.config.common" (list . "controller") | fromJson -}}
{{- $replicas := .Values.config.buckets.replicas | int -}}
{{- if not $replicas -}}
{{- $replicas = ternary (.Values.nats.embedded.replicas | int) 3 (eq (include "warm-images.nats.embedded" .) "true") -}}
{{- end -}}
{{- $_ := set $config "buckets" (merge (dict "replicas" $replicas) .Values.config.buckets) -}}
{{- $_ := set $config "discover" .Values.config.discover -}}
{{- $_ := set $config "select" (include "warm-images.config.select" . | fromJson) -}}
{{- with include "warm-images.nats.identity" . | fromJson -}}
{{- $_ := set $config "identity" . -}}
{{- end -}}
{{- $_ := set $config "target" .Values.config.target -}}
{{- $_ := set $config "labels" .Values.config.labels -}}
{{- $_ := set $config "sets" .Values.config.sets -}}
{{- $_ := set $config "events" .Values.config.events -}}
{{- $_ := set $config "leader" (dict "leaseName" (include "warm-images.lease" .)) -}}
{{- mergeOverwrite $config (deepCopy .Values.config.controller) | toJson -}}
{{- end -}}

{{/* Rules for the kinds of config.discover, one a group. */}}
{{- define "warm-images.discoverRules" -}}
{{- $presets := .Files.Get "files/presets.json" | fromJson -}}
{{- $kinds := .Values.config.discover.kinds -}}
{{- range .Values.config.discover.presets -}}
{{- $kinds = concat $kinds (index $presets .) -}}
{{- end -}}
{{- $groups := dict -}}
{{- range $kinds -}}
{{- $plural := .plural | default (printf "%ss" (lower .kind)) -}}
{{- $_ := set $groups .group (append (index $groups .group | default list) $plural) -}}
{{- end -}}
{{- range $group, $resources := $groups }}
- apiGroups: [{{ $group | quote }}]
  resources: {{ $resources | uniq | sortAlpha | toJson }}
  verbs: [list, watch]
{{- end -}}
{{- end -}}

{{- define "warm-images.config.agent" -}}
{{- $config := include "warm-images.config.common" (list . "agent") | fromJson -}}
{{- $_ := set $config "runtime" (dict "socket" (include "warm-images.socket" .)) -}}
{{- $_ := set $config "stateDir" .Values.agent.stateDir -}}
{{- range $key := list "pull" "disk" "gc" -}}
{{- $_ := set $config $key (index $.Values.config $key) -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.config.agent) | toJson -}}
{{- end -}}

{{/* The runtime's CRI socket. */}}
{{- define "warm-images.socket" -}}
{{- $presets := dict
      "containerd" "/run/containerd/containerd.sock"
      "k3s" "/run/k3s/containerd/containerd.sock"
      "k0s" "/run/k0s/containerd.sock"
      "microk8s" "/var/snap/microk8s/common/run/containerd.sock"
      "crio" "/run/crio/crio.sock" -}}
{{- $runtime := .Values.agent.runtime -}}
{{- if eq $runtime.preset "custom" -}}
{{- $runtime.socket | required "agent.runtime.socket is empty: with the preset `custom` give the path of the CRI socket" -}}
{{- else if $runtime.socket -}}
{{- fail (printf "agent.runtime.socket is given beside the preset `%s`: set agent.runtime.preset to `custom`, or remove the socket" $runtime.preset) -}}
{{- else -}}
{{- index $presets $runtime.preset -}}
{{- end -}}
{{- end -}}
