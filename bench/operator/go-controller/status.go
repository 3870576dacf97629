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
	ready := deployment.Status.ReadyReplicas
	status := Status{
		ObservedGeneration: md.Generation,
		URL:                fmt.Sprintf("http://%s.%s.svc.cluster.local", md.Name, md.Namespace),
		Version:            version(md, names),
		Replicas:           deployment.Status.Replicas,
		ReadyReplicas:      ready,
		Selector:           fmt.Sprintf("%s=%s,%s=%s", labelDeployment, md.Name, labelPodSet, names.podSet),
		Conditions:         append([]metav1.Condition(nil), md.Status.Conditions...),
		Revisions: []RevisionStatus{{
			Name: names.revision, Version: version(md, names), Weight: 100,
			Replicas: deployment.Status.Replicas, ReadyReplicas: ready, Phase: phase(md, ready),
		}},
	}
	for _, condition := range conditions(md, ready) {
		condition.ObservedGeneration = md.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}

func phase(md *ModelDeployment, ready int32) string {
	if ready >= md.Spec.Replicas {
		return "Serving"
	}
	return "Starting"
}

func conditions(md *ModelDeployment, ready int32) []metav1.Condition {
	full := ready >= md.Spec.Replicas
	waiting := fmt.Sprintf("%d of %d pods are ready", ready, md.Spec.Replicas)
	return []metav1.Condition{
		condition("Ready", full, "Ready", "PodsStarting", waiting),
		condition("Available", ready > 0, "Available", "PodsStarting", waiting),
		condition("Progressing", !full, "PodsStarting", "Ready", waiting),
		condition("Degraded", false, "Degraded", "AsExpected", ""),
		condition("Stalled", false, "Stalled", "AsExpected", ""),
		condition("ModelResolved", md.Spec.Model.Digest != "", "Resolved", "DigestUnknown", ""),
		condition("Scheduled", full, "Scheduled", "PodsStarting", waiting),
		condition("Loaded", full, "Loaded", "PodsStarting", waiting),
	}
}

func condition(kind string, holds bool, yes, no, message string) metav1.Condition {
	if holds {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: yes, Message: message}
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: no, Message: message}
}
