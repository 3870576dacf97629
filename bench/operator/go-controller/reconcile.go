package main

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Reconciler brings the children of one ModelDeployment in line with its spec, then its status.
type Reconciler struct {
	client.Client
	scheme *runtime.Scheme
	maker  *Maker
}

func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var md ModelDeployment
	if err := r.Get(ctx, request.NamespacedName, &md); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if md.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	children, err := r.desired(ctx, &md)
	if err != nil {
		return ctrl.Result{}, err
	}
	for _, want := range children.inOrder() {
		if err := r.ensure(ctx, &md, want); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, r.report(ctx, &md, children)
}

// desired reads the live plan first: its generation only grows when its content changes.
func (r *Reconciler) desired(ctx context.Context, md *ModelDeployment) (*Children, error) {
	var live corev1.ConfigMap
	key := client.ObjectKey{Namespace: md.Namespace, Name: r.maker.names(md).plan}
	if err := r.Get(ctx, key, &live); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	return r.maker.Make(md, live.Data[planKeyInConfigMap], time.Now())
}

// ensure creates the child or updates it where it differs; a second pass over an unchanged child writes nothing.
func (r *Reconciler) ensure(ctx context.Context, md *ModelDeployment, want client.Object) error {
	live := empty(want)
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, live, func() error {
		live.SetLabels(merged(live.GetLabels(), want.GetLabels()))
		if live.GetResourceVersion() == "" || !dated(want) {
			live.SetAnnotations(merged(live.GetAnnotations(), want.GetAnnotations()))
		}
		overlay(live, want)
		return controllerutil.SetControllerReference(md, live, r.scheme)
	})
	return err
}

// dated: its annotation holds the time at which it was made as it is.
func dated(want client.Object) bool {
	switch want.(type) {
	case *appsv1.ControllerRevision, *corev1.Service:
		return true
	}
	return false
}

func empty(want client.Object) client.Object {
	live := want.DeepCopyObject().(client.Object)
	switch child := live.(type) {
	case *appsv1.ControllerRevision:
		*child = appsv1.ControllerRevision{}
	case *appsv1.Deployment:
		*child = appsv1.Deployment{}
	case *corev1.ConfigMap:
		*child = corev1.ConfigMap{}
	case *corev1.Service:
		*child = corev1.Service{}
	case *corev1.ServiceAccount:
		*child = corev1.ServiceAccount{}
	case *networkingv1.NetworkPolicy:
		*child = networkingv1.NetworkPolicy{}
	case *policyv1.PodDisruptionBudget:
		*child = policyv1.PodDisruptionBudget{}
	}
	live.SetName(want.GetName())
	live.SetNamespace(want.GetNamespace())
	return live
}

// overlay replaces a section only where the wanted one is not already contained in it: the API server's defaults stay.
func overlay(live, want client.Object) {
	switch wanted := want.(type) {
	case *appsv1.ControllerRevision:
		child := live.(*appsv1.ControllerRevision)
		if child.Data.Raw == nil { // data is immutable
			child.Data, child.Revision = wanted.Data, wanted.Revision
		}
	case *appsv1.Deployment:
		section(&live.(*appsv1.Deployment).Spec, wanted.Spec)
	case *corev1.ConfigMap:
		live.(*corev1.ConfigMap).Data = wanted.Data
	case *corev1.Service:
		section(&live.(*corev1.Service).Spec, wanted.Spec)
	case *corev1.ServiceAccount:
		live.(*corev1.ServiceAccount).AutomountServiceAccountToken = wanted.AutomountServiceAccountToken
	case *networkingv1.NetworkPolicy:
		section(&live.(*networkingv1.NetworkPolicy).Spec, wanted.Spec)
	case *policyv1.PodDisruptionBudget:
		section(&live.(*policyv1.PodDisruptionBudget).Spec, wanted.Spec)
	}
}

func section[T any](live *T, want T) {
	if !equality.Semantic.DeepDerivative(want, *live) {
		*live = want
	}
}

func merged(live, want map[string]string) map[string]string {
	if live == nil {
		return want
	}
	for key, value := range want {
		live[key] = value
	}
	return live
}
