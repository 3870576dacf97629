package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// report patches the status where it changed.
func (r *Reconciler) report(ctx context.Context, md *ModelDeployment, children *Children) error {
	var deployment appsv1.Deployment
	if err := r.Get(ctx, client.ObjectKeyFromObject(children.deployment), &deployment); client.IgnoreNotFound(err) != nil {
		return err
	}
	before := md.DeepCopyObject().(*ModelDeployment)
	md.Status = r.maker.status(md, children.names, &deployment)
	if equality.Semantic.DeepEqual(before.Status, md.Status) {
		return nil
	}
	return client.IgnoreNotFound(r.Status().Patch(ctx, md, client.MergeFrom(before)))
}

func (m *Maker) status(md *ModelDeployment, names Names, deployment *appsv1.Deployment) Status {
	replicas, ready := deployment.Status.Replicas, deployment.Status.ReadyReplicas
	state := stateOf(md, replicas, ready)
	status := Status{
		ObservedGeneration: md.Generation,
		URL:                fmt.Sprintf("http://%s.%s.svc.cluster.local", md.Name, md.Namespace),
		Version:            version(md, names),
		Replicas:           &replicas,
		ReadyReplicas:      &ready,
		Selector:           fmt.Sprintf("%s=%s,%s=%s", labelDeployment, md.Name, labelPodSet, names.podSet),
		Conditions:         append([]metav1.Condition(nil), md.Status.Conditions...),
		Revisions: []RevisionStatus{{
			Name: names.revision, Version: version(md, names), PodSet: names.podSet, Weight: 100,
			Replicas: replicas, ReadyReplicas: ready, Phase: state.phase, Reason: state.reason, Message: state.message,
		}},
		Rollout: &RolloutStatus{Phase: "First"},
	}
	for _, condition := range state.conditions(md) {
		condition.ObservedGeneration = md.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}

// State is how far the pods of a ModelDeployment are.
type State struct {
	full, available        bool
	phase, reason, message string
}

func stateOf(md *ModelDeployment, replicas, ready int32) State {
	switch {
	case ready >= md.Spec.Replicas:
		return State{true, ready > 0, "Serving", "Serving", "It serves."}
	case replicas == 0:
		return State{false, false, "Starting", "Creating", "No pod exists yet."}
	default:
		message := fmt.Sprintf("%d of %d pods are ready.", ready, md.Spec.Replicas)
		return State{false, ready > 0, "Starting", "Starting", message}
	}
}

func (s State) conditions(md *ModelDeployment) []metav1.Condition {
	stalled := s.condition("Stalled", false)
	if !s.full {
		stalled.Message = "The objects are being made; no pod exists yet."
	}
	healthy := metav1.Condition{
		Type: "Degraded", Status: metav1.ConditionFalse, Reason: "Healthy", Message: "Nothing is wrong.",
	}
	return []metav1.Condition{
		s.condition("Ready", s.full),
		s.condition("Available", s.available),
		s.condition("Progressing", !s.full),
		healthy,
		stalled,
		s.condition("ModelResolved", md.Spec.Model.Digest != ""),
		s.condition("Scheduled", s.full),
		s.condition("Loaded", s.full),
	}
}

func (s State) condition(kind string, holds bool) metav1.Condition {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: s.reason, Message: s.message}
}
