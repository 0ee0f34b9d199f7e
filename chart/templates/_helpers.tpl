{{/* Names, labels and images. */}}

{{- define "dormouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "dormouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "dormouse.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "dormouse.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: what selectors use. Called with (dict "root" . "component" "dlx"). */}}
{{- define "dormouse.selectorLabels" -}}
app.kubernetes.io/name: {{ include "dormouse.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of an object: those of the chart, then those of (dict "labels" …), then the common ones. No key is there twice. */}}
{{- define "dormouse.labels" -}}
{{ include "dormouse.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: dormouse
{{- with merge (dict) (default (dict) .labels) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Annotations of an object: the common ones, and those of (dict "more" …). Nothing when there are none. */}}
{{- define "dormouse.annotations" -}}
{{- $all := merge (dict) (default (dict) .more) .root.Values.commonAnnotations -}}
{{- with $all }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* v3io's chart: its values, where they mean something here. The new name wins. */}}
{{- define "dormouse.legacy" -}}
{{- $scaler := default (dict) (default (dict) .Values.scaler).image -}}
{{- $dlx := default (dict) .Values.dlx.image -}}
autoscaler:
  scaleInterval: {{ $scaler.scaleInterval | toJson }}
  metricsResourceKind: {{ $scaler.metricsResourceKind | toJson }}
  metricsResourceGroup: {{ $scaler.metricsResourceGroup | toJson }}
dlx:
  targetNameHeader: {{ $dlx.targetNameHeader | toJson }}
  targetPathHeader: {{ $dlx.targetPathHeader | toJson }}
  targetPort: {{ $dlx.targetPort | toJson }}
  listenAddress: {{ $dlx.listenAddress | toJson }}
common:
  resourceReadinessTimeout: {{ $dlx.resourceReadinessTimeout | toJson }}
image:
  repository: {{ $scaler.repository | toJson }}
  tag: {{ $scaler.tag | toJson }}
  pullPolicy: {{ $scaler.pullPolicy | toJson }}
{{- end -}}

{{/* The image of a component: its own differences, then v3io's names, then the chart's. */}}
{{- define "dormouse.imageValues" -}}
{{- $own := default (dict) (index .root.Values .component).image -}}
{{- $legacy := dict -}}
{{- if eq .component "autoscaler" -}}
{{- $legacy = (include "dormouse.legacy" .root | fromYaml).image -}}
{{- end -}}
{{- $image := dict -}}
{{- range $key := list "repository" "tag" "digest" "pullPolicy" -}}
{{- $_ := set $image $key (coalesce (get $own $key) (get $legacy $key) (get $.root.Values.image $key) "") -}}
{{- end -}}
{{- toYaml $image -}}
{{- end -}}

{{- define "dormouse.image" -}}
{{- $image := include "dormouse.imageValues" . | fromYaml -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.serviceAccountName" -}}
{{- $own := (index .root.Values .component).serviceAccount.name -}}
{{- coalesce $own .root.Values.rbac.serviceAccountName (printf "%s-%s" (include "dormouse.fullname" .root) .component) -}}
{{- end -}}

{{/* The namespace that is looked after, or `*`. */}}
{{- define "dormouse.scope" -}}
{{- default .Release.Namespace .Values.config.common.namespace -}}
{{- end -}}

{{- define "dormouse.lease" -}}
{{- default (printf "%s/%s-autoscaler" .Release.Namespace (include "dormouse.fullname" .)) .Values.config.autoscaler.leaderLease -}}
{{- end -}}

{{/* Names of all Leases, as JSON: the main one, and one for each shard if there are several. */}}
{{- define "dormouse.leaseNames" -}}
{{- $lease := index (splitList "/" (include "dormouse.lease" .)) 1 -}}
{{- $names := list $lease -}}
{{- $shards := int (default 1 .Values.config.autoscaler.shards) -}}
{{- if gt $shards 1 -}}
{{- range until $shards -}}
{{- $names = append $names (printf "%s-%d" $lease .) -}}
{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "dormouse.dlxService" -}}
{{- default (printf "%s/%s-dlx" .Release.Namespace (include "dormouse.fullname" .)) .Values.config.common.dlxService -}}
{{- end -}}

{{- define "dormouse.adminPort" -}}
{{- regexFind "[0-9]+$" (default ":9090" .Values.config.common.adminAddress) -}}
{{- end -}}

{{/* A duration as Go writes it (1h30m, 500ms), in whole seconds, rounded up. */}}
{{- define "dormouse.seconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|us|µs|ns|h|m|s)" . -1 -}}
{{- $number := float64 (regexFind "^[0-9.]+" .) -}}
{{- $unit := regexFind "[a-zµ]+$" . -}}
{{- $factor := get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit | default 0.0 -}}
{{- $sum = addf $sum (mulf $number $factor) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end -}}

{{/*
Takes out of a map, at every depth, what has no value, and turns numbers into whole ones (a template prints large numbers as
1e+06 otherwise). Called with (dict "map" …); "empty": true takes empty texts out too.
*/}}
{{- define "dormouse.tidy" -}}
{{- $map := .map -}}
{{- range $key := keys $map -}}
{{- $value := get $map $key -}}
{{- if kindIs "map" $value -}}
{{- include "dormouse.tidy" (dict "map" $value "empty" $.empty) -}}
{{- else if kindIs "invalid" $value -}}
{{- $_ := unset $map $key -}}
{{- else if and $.empty (kindIs "string" $value) (eq $value "") -}}
{{- $_ := unset $map $key -}}
{{- else if kindIs "float64" $value -}}
{{- $_ := set $map $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "dormouse.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $legacy := include "dormouse.legacy" . | fromYaml -}}
{{- range $section := list "common" "autoscaler" "dlx" -}}
{{- $options := default (dict) (get $config $section) -}}
{{- $_ := include "dormouse.tidy" (dict "map" $options "empty" true) -}}
{{- $old := get $legacy $section -}}
{{- $_ := include "dormouse.tidy" (dict "map" $old "empty" true) -}}
{{- /* The chart's own default is no wish: what v3io's name says wins over it. */ -}}
{{- if and $old.listenAddress (eq (default "" $options.listenAddress) ":8080") -}}
{{- $_ := set $options "listenAddress" $old.listenAddress -}}
{{- end -}}
{{- $_ := set $config $section (merge $options $old) -}}
{{- end -}}
{{- $_ := set $config.common "namespace" (include "dormouse.scope" .) -}}
{{- $_ := set $config.common "dlxService" (include "dormouse.dlxService" .) -}}
{{- if not $config.common.pluginsDir -}}
{{- $_ := set $config.common "pluginsDir" (include "dormouse.pluginPlaces" . | fromYamlArray) -}}
{{- end -}}
{{- $_ := set $config.autoscaler "leaderLease" (include "dormouse.lease" .) -}}
{{- $_ := include "dormouse.tidy" (dict "map" $config.plugins "empty" false) -}}
{{- if $config.metrics -}}
{{- $_ := include "dormouse.tidy" (dict "map" $config.metrics "empty" false) -}}
{{- else -}}
{{- $_ := unset $config "metrics" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "dormouse.httpPort" -}}
{{- $config := include "dormouse.config" . | fromYaml -}}
{{- regexFind "[0-9]+$" $config.dlx.listenAddress -}}
{{- end -}}

{{/* How long a DLX pod needs from SIGTERM to its end. */}}
{{- define "dormouse.dlxEnding" -}}
{{- $options := (include "dormouse.config" . | fromYaml).dlx -}}
{{- $delay := include "dormouse.seconds" (default "2s" $options.shutdownDelay) | int64 -}}
{{- $drain := include "dormouse.seconds" (default "30s" $options.drainLimit) | int64 -}}
{{- add $delay $drain -}}
{{- end -}}

{{- define "dormouse.dlxGrace" -}}
{{- $needed := include "dormouse.dlxEnding" . | int64 -}}
{{- $given := .Values.dlx.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add $needed 10 -}}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "dlx.terminationGracePeriodSeconds is %d, but shutdownDelay and drainLimit need %d: requests would be cut off" (int64 $given) $needed) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}
