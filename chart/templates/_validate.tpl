{{/* What cannot work, alone or together. Each message names the key, the value and what would be right. */}}

{{/* A duration as Go writes it, in milliseconds. Less than half of one is none. */}}
{{- define "dormouse.millis" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|us|µs|ns|h|m|s)" . -1 -}}
{{- $number := float64 (regexFind "^[0-9.]+" .) -}}
{{- $unit := regexFind "[a-zµ]+$" . -}}
{{- $factor := get (dict "h" 3600000.0 "m" 60000.0 "s" 1000.0 "ms" 1.0 "us" 0.001 "µs" 0.001) $unit | default 0.0 -}}
{{- $sum = addf $sum (mulf $number $factor) -}}
{{- end -}}
{{- round $sum 0 | int64 -}}
{{- end -}}

{{/* The same ranges as those of the processes (host/dormouse/src/config/ranges.rs): key, least, most, whether zero has a meaning. */}}
{{- define "dormouse.validateDurations" -}}
{{- $config := include "dormouse.config" . | fromYaml -}}
{{- $day := 86400000 -}}
{{- $ranges := list
  (list "common" "resourceReadinessTimeout" 100 $day false "100ms to 24h")
  (list "common" "drainGrace" 1 $day true "0s, or 1ms to 24h")
  (list "common" "outageGrace" 1 $day true "0s, or 1ms to 24h")
  (list "common" "lookSettle" 10 $day false "10ms to 24h")
  (list "common" "lookLongest" 100 (mul 30 $day) false "100ms to 720h")
  (list "common" "dlxAbsence" 100 3600000 false "100ms to 1h")
  (list "autoscaler" "scaleInterval" 100 $day false "100ms to 24h")
  (list "dlx" "tcpSilence" 10 10000 false "10ms to 10s")
  (list "dlx" "connectionIdle" 1000 $day true "0s, or 1s to 24h")
  (list "dlx" "tcpIdleLimit" 1000 $day true "0s, or 1s to 24h")
  (list "dlx" "tcpHalfOpenLimit" 1000 $day true "0s, or 1s to 24h")
  (list "dlx" "drainLimit" 1 $day true "0s, or 1ms to 24h")
  (list "dlx" "shutdownDelay" 1 3600000 true "0s, or 1ms to 1h") -}}
{{- range $ranges -}}
{{- $value := get (get $config (index . 0)) (index . 1) -}}
{{- if $value -}}
{{- include "dormouse.validateDuration" (list (printf "config.%s.%s" (index . 0) (index . 1)) $value (index . 2) (index . 3) (index . 4) (index . 5)) -}}
{{- end -}}
{{- end -}}
{{- include "dormouse.validateDuration" (list "uninstall.deadline" .Values.uninstall.deadline 1000 $day false "1s to 24h") -}}
{{- include "dormouse.validateDuration" (list "uninstall.wakeLimit" .Values.uninstall.wakeLimit 1000 $day false "1s to 24h") -}}
{{- include "dormouse.validateDuration" (list "test.patience" .Values.test.patience 1 $day true "0s, or 1ms to 24h") -}}
{{- end -}}

{{- define "dormouse.validateDuration" -}}
{{- $value := index . 1 -}}
{{- $millis := include "dormouse.millis" $value | int64 -}}
{{- $zero := regexMatch "^(0+(\\.0+)?[a-zµ]+)+$" $value -}}
{{- if not (and $zero (index . 4)) -}}
{{- if or (lt $millis (int64 (index . 2))) (gt $millis (int64 (index . 3))) -}}
{{- fail (printf "%s: %s is out of range: %s is allowed" (index . 0) $value (index . 5)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.validatePorts" -}}
{{- $config := include "dormouse.config" . | fromYaml -}}
{{- $range := default "20000-29999" $config.common.dlxPorts -}}
{{- $first := index (splitList "-" $range) 0 | atoi -}}
{{- $last := index (splitList "-" $range) 1 | atoi -}}
{{- if or (lt $first 1) (gt $last 65535) -}}
{{- fail (printf "config.common.dlxPorts: %s is out of range: ports are 1 to 65535" $range) -}}
{{- end -}}
{{- if gt $first $last -}}
{{- fail (printf "config.common.dlxPorts: %s is in the wrong order: the first port comes first" $range) -}}
{{- end -}}
{{- $admin := include "dormouse.adminPort" . | atoi -}}
{{- $http := include "dormouse.httpPort" . | atoi -}}
{{- range $key, $port := dict "config.common.adminAddress" $admin "config.dlx.listenAddress" $http -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "%s: port %d is out of range: 1 to 65535 is allowed" $key $port) -}}
{{- end -}}
{{- if and (ge $port $first) (le $port $last) -}}
{{- fail (printf "%s: port %d is one of config.common.dlxPorts (%s), which stand in for Services" $key $port $range) -}}
{{- end -}}
{{- end -}}
{{- if eq $admin $http -}}
{{- fail (printf "config.common.adminAddress and config.dlx.listenAddress both have port %d; each needs its own" $admin) -}}
{{- end -}}
{{- if eq (int64 .Values.dlx.service.port) (int64 $admin) -}}
{{- fail (printf "dlx.service.port: %d is also the port of config.common.adminAddress, which the same Service has" $admin) -}}
{{- end -}}
{{- $bind := default "" $config.common.bindAddress -}}
{{- range $key, $address := dict "config.common.adminAddress" (default ":9090" $config.common.adminAddress) "config.dlx.listenAddress" $config.dlx.listenAddress -}}
{{- $host := regexReplaceAll ":[0-9]+$" $address "" | trimAll "[]" -}}
{{- $interface := default $bind $host -}}
{{- if or (hasPrefix "127." $interface) (eq "::1" $interface) (eq "localhost" $interface) -}}
{{- $named := ternary $key "config.common.bindAddress" (ne $host "") -}}
{{- fail (printf "%s: %s is reachable from within the pod only, so neither probes nor clients would reach %s; leave the host out, as in :%s" $named $interface $key (regexFind "[0-9]+$" $address)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The labels that the chart gives itself: selectors and whoever looks for the chart's objects rely on them. */}}
{{- define "dormouse.validateLabels" -}}
{{- $own := list "name" "instance" "component" "version" "managed-by" "part-of" -}}
{{- $given := dict "commonLabels" .Values.commonLabels "autoscaler.podLabels" .Values.autoscaler.podLabels "dlx.podLabels" .Values.dlx.podLabels
  "serviceMonitor.labels" .Values.serviceMonitor.labels "podMonitor.labels" .Values.podMonitor.labels "prometheusRule.labels" .Values.prometheusRule.labels
  "dashboards.labels" .Values.dashboards.labels "autoscaler.service.labels" .Values.autoscaler.service.labels "dlx.service.labels" .Values.dlx.service.labels
  "autoscaler.serviceAccount.labels" .Values.autoscaler.serviceAccount.labels "dlx.serviceAccount.labels" .Values.dlx.serviceAccount.labels -}}
{{- range $key, $labels := $given -}}
{{- range $label, $value := $labels -}}
{{- if and (hasPrefix "app.kubernetes.io/" $label) (has (trimPrefix "app.kubernetes.io/" $label) $own) -}}
{{- fail (printf "%s: %s is a label that the chart sets itself, and by which it is found; choose another" $key $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $component := list "autoscaler" "dlx" -}}
{{- $values := index $.Values $component -}}
{{- range $annotation, $value := $values.podAnnotations -}}
{{- if has $annotation (list "dormouse.dev/config-checksum" "dormouse.dev/plugins-checksum") -}}
{{- fail (printf "%s.podAnnotations: %s is set by the chart itself, so that pods are replaced when the configuration changes" $component $annotation) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraEnv -}}
{{- if eq .name "POD_NAME" -}}
{{- fail (printf "%s.extraEnv: POD_NAME is set by the chart itself" $component) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraVolumes -}}
{{- if or (eq .name "config") (hasPrefix "plugins-" .name) -}}
{{- fail (printf "%s.extraVolumes: %s is a name of the chart's own volumes; choose another" $component .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.validateMonitoring" -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both true: everything would be scraped twice; choose one" -}}
{{- end -}}
{{- range $key := list "serviceMonitor" "podMonitor" -}}
{{- $monitor := index $.Values $key -}}
{{- if $monitor.enabled -}}
{{- if and $.Values.networkPolicy.enabled (not $.Values.networkPolicy.metricsFrom) -}}
{{- fail (printf "networkPolicy.metricsFrom is empty, so no Prometheus could reach the admin ports that %s.enabled asks it to scrape: name its pods, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], or set networkPolicy.enabled to false" $key) -}}
{{- end -}}
{{- if gt (include "dormouse.millis" $monitor.scrapeTimeout | int64) (include "dormouse.millis" $monitor.interval | int64) -}}
{{- fail (printf "%s.scrapeTimeout: %s is longer than %s.interval %s, which Prometheus refuses" $key $monitor.scrapeTimeout $key $monitor.interval) -}}
{{- end -}}
{{- if lt (include "dormouse.millis" $monitor.interval | int64) 1000 -}}
{{- fail (printf "%s.interval: %s is out of range: 1s or longer is allowed" $key $monitor.interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.validatePods" -}}
{{- range $component := list "autoscaler" "dlx" -}}
{{- $values := index $.Values $component -}}
{{- $least := $values.podDisruptionBudget.minAvailable -}}
{{- if not (kindIs "invalid" $least) -}}
{{- if and $values.podDisruptionBudget.enabled (not (kindIs "string" $least)) (gt (int64 $values.replicas) 0) (ge (int64 $least) (int64 $values.replicas)) -}}
{{- fail (printf "%s.podDisruptionBudget.minAvailable: %d of %s.replicas %d must stay, so no node could ever be drained" $component (int64 $least) $component (int64 $values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* The process ends within 15 s of SIGTERM, whatever does not answer. */ -}}
{{- if lt (int64 .Values.autoscaler.terminationGracePeriodSeconds) 16 -}}
{{- fail (printf "autoscaler.terminationGracePeriodSeconds is %d, but giving the Lease back may take 15: at least 16 is needed" (int64 .Values.autoscaler.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- with .Values.dlx.strategy -}}
{{- $away := (default (dict) .rollingUpdate).maxUnavailable -}}
{{- if or (eq (default "RollingUpdate" .type) "Recreate") (kindIs "invalid" $away) (ne (toString $away) "0") -}}
{{- fail "dlx.strategy takes pods away before new ones are there, so that nobody would hold the requests of sleeping workloads: it must be of type RollingUpdate with rollingUpdate.maxUnavailable 0" -}}
{{- end -}}
{{- end -}}
{{- $service := .Values.dlx.service -}}
{{- if and $service.nodePort (eq $service.type "ClusterIP") -}}
{{- fail (printf "dlx.service.nodePort: %d has no effect with dlx.service.type ClusterIP; NodePort or LoadBalancer have node ports" (int64 $service.nodePort)) -}}
{{- end -}}
{{- range $key := list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if and (index $service $key) (ne $service.type "LoadBalancer") -}}
{{- fail (printf "dlx.service.%s has no effect with dlx.service.type %s; it belongs to LoadBalancer" $key $service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.validate" -}}
{{- include "dormouse.validatePorts" . -}}
{{- include "dormouse.validateDurations" . -}}
{{- include "dormouse.validateLabels" . -}}
{{- include "dormouse.validateMonitoring" . -}}
{{- include "dormouse.validatePods" . -}}
{{- end -}}
