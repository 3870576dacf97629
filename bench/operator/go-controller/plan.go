package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"time"
)

// Plan is what model servers are told; the keys of its JSON are sorted because the fields are in that order.
type Plan struct {
	Generation int64          `json:"generation"`
	Models     []PlannedModel `json:"models"`
	OwnerUID   string         `json:"owner_uid"`
	PodSet     string         `json:"pod_set"`
}

type PlannedModel struct {
	Credentials *string     `json:"credentials"`
	Digest      *string     `json:"digest"`
	Name        string      `json:"name"`
	Options     PlanOptions `json:"options"`
	Revision    string      `json:"revision"`
	Role        string      `json:"role"`
	URI         string      `json:"uri"`
	Version     string      `json:"version"`
	Weight      int         `json:"weight"`
}

type PlanOptions struct {
	Batching          PlanBatching   `json:"batching"`
	CustomOperators   []string       `json:"custom_operators"`
	GoldenTests       PlanTests      `json:"golden_tests"`
	GraphOptimization string         `json:"graph_optimization"`
	Hooks             bool           `json:"hooks"`
	Instances         int            `json:"instances"`
	Isolated          bool           `json:"isolated"`
	Limits            PlanLimits     `json:"limits"`
	Providers         []PlanProvider `json:"providers"`
	Threads           int            `json:"threads"`
}

type PlanTests struct {
	Absolute float64 `json:"absolute"`
	Enabled  bool    `json:"enabled"`
	Relative float64 `json:"relative"`
}

type PlanBatching struct {
	Enabled  bool               `json:"enabled"`
	Mask     string             `json:"mask"`
	MaxDelay float64            `json:"max_delay"`
	MaxRows  int                `json:"max_rows"`
	Padding  map[string]float64 `json:"padding"`
}

type PlanLimits struct {
	MaxBodyBytes   int64   `json:"max_body_bytes"`
	MaxQueue       int     `json:"max_queue"`
	MaxQueueWait   float64 `json:"max_queue_wait"`
	PriorityLevels int     `json:"priority_levels"`
	RequestTimeout float64 `json:"request_timeout"`
	RunTimeout     float64 `json:"run_timeout"`
}

type PlanProvider struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options"`
}

// planData is the ConfigMap's content. The live plan's generation is kept while nothing else of it changed.
func planData(plan Plan, live string, key ed25519.PrivateKey, now time.Time) (map[string]string, error) {
	var held Plan
	if live != "" && json.Unmarshal([]byte(live), &held) == nil {
		plan.Generation = held.Generation
		if raw, err := json.Marshal(plan); err == nil && string(raw) == live {
			return signed(raw, key), nil
		}
	}
	plan.Generation = max(held.Generation+1, now.UnixMilli())
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	return signed(raw, key), nil
}

func signed(plan []byte, key ed25519.PrivateKey) map[string]string {
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(key, plan))
	return map[string]string{planKeyInConfigMap: string(plan), signatureKeyInConfigMap: signature}
}

func plannedModel(md *ModelDeployment, revision, version string) PlannedModel {
	spec := md.Spec
	batching, limits := spec.Server.Batching, spec.Server.Limits
	options := PlanOptions{
		Batching: PlanBatching{
			Enabled:  batching.Enabled,
			Mask:     batching.Mask,
			MaxDelay: float64(batching.MaxDelayMicroseconds) / 1e6,
			MaxRows:  batching.MaxRows,
			Padding:  padding(batching.Padding),
		},
		CustomOperators: append([]string{}, spec.Server.CustomOperators...),
		GoldenTests: PlanTests{
			Absolute: spec.Model.Tests.AbsoluteTolerance,
			Enabled:  spec.Model.Tests.Enabled,
			Relative: spec.Model.Tests.RelativeTolerance,
		},
		GraphOptimization: spec.Server.GraphOptimization,
		Hooks:             spec.Server.Hooks,
		Instances:         spec.Server.Instances,
		Isolated:          spec.Server.Isolated,
		Limits: PlanLimits{
			MaxBodyBytes:   limits.MaxBodyBytes,
			MaxQueue:       limits.MaxQueue,
			MaxQueueWait:   float64(limits.MaxQueueWaitMilliseconds) / 1e3,
			PriorityLevels: limits.PriorityLevels,
			RequestTimeout: float64(limits.RequestTimeoutSeconds),
			RunTimeout:     float64(limits.RunTimeoutSeconds),
		},
		Providers: planProviders(spec),
		Threads:   spec.Server.Threads,
	}
	return PlannedModel{
		Credentials: optional(spec.Model.CredentialsSecret),
		Digest:      optional(spec.Model.Digest),
		Name:        md.Name,
		Options:     options,
		Revision:    revision,
		Role:        "required",
		URI:         spec.Model.URI,
		Version:     version,
		Weight:      100,
	}
}

// padding is an object even where there is none: servers want one.
func padding(asked map[string]float64) map[string]float64 {
	if asked == nil {
		return map[string]float64{}
	}
	return asked
}

func planProviders(spec Spec) []PlanProvider {
	if len(spec.Server.ExecutionProviders) == 0 {
		cpu := PlanProvider{Name: "CPUExecutionProvider", Options: map[string]string{}}
		if spec.Resources.GPU == 0 {
			return []PlanProvider{cpu}
		}
		return []PlanProvider{{Name: "CUDAExecutionProvider", Options: map[string]string{}}, cpu}
	}
	providers := make([]PlanProvider, 0, len(spec.Server.ExecutionProviders))
	for _, provider := range spec.Server.ExecutionProviders {
		providers = append(providers, PlanProvider{Name: provider.Name, Options: merged(map[string]string{}, provider.Options)})
	}
	return providers
}

func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}
