package main

// intent is the part of the spec that makes a revision, without what equals its default: a later version of the CRD
// may then add fields without making new revisions.
func intent(md *ModelDeployment) map[string]any {
	sections := fields{}
	sections.put("model", modelIntent(md.Spec.Model))
	sections.put("server", serverIntent(md.Spec.Server))
	sections.put("resources", resourcesIntent(md.Spec.Resources))
	return sections
}

type fields map[string]any

// put leaves out sections without a field.
func (f fields) put(name string, section fields) {
	if len(section) > 0 {
		f[name] = section
	}
}

// unless sets a field that differs from its default.
func unless[T comparable](f fields, name string, value, byDefault T) {
	if value != byDefault {
		f[name] = value
	}
}

func modelIntent(model Model) fields {
	f, tests := fields{}, fields{}
	unless(tests, "enabled", model.Tests.Enabled, true)
	unless(tests, "relativeTolerance", model.Tests.RelativeTolerance, 0.001)
	unless(tests, "absoluteTolerance", model.Tests.AbsoluteTolerance, 0.00001)
	f.put("tests", tests)
	unless(f, "uri", model.URI, "")
	unless(f, "version", model.Version, "")
	unless(f, "digest", model.Digest, "")
	unless(f, "credentialsSecret", model.CredentialsSecret, "")
	return f
}

func serverIntent(server Server) fields {
	f, batching, limits := fields{}, fields{}, fields{}
	unless(batching, "enabled", server.Batching.Enabled, true)
	unless(batching, "maxRows", server.Batching.MaxRows, 64)
	unless(batching, "maxDelayMicroseconds", server.Batching.MaxDelayMicroseconds, 0)
	unless(batching, "mask", server.Batching.Mask, "")
	if len(server.Batching.Padding) > 0 {
		batching["padding"] = server.Batching.Padding
	}
	unless(limits, "maxQueue", server.Limits.MaxQueue, 1024)
	unless(limits, "maxQueueWaitMilliseconds", server.Limits.MaxQueueWaitMilliseconds, 0)
	unless(limits, "priorityLevels", server.Limits.PriorityLevels, 1)
	unless(limits, "runTimeoutSeconds", server.Limits.RunTimeoutSeconds, 0)
	unless(limits, "requestTimeoutSeconds", server.Limits.RequestTimeoutSeconds, 60)
	unless(limits, "maxBodyBytes", server.Limits.MaxBodyBytes, 64<<20)
	f.put("batching", batching)
	f.put("limits", limits)
	if len(server.ExecutionProviders) > 0 {
		f["executionProviders"] = server.ExecutionProviders
	}
	if len(server.ImagePullSecrets) > 0 {
		f["imagePullSecrets"] = server.ImagePullSecrets
	}
	if len(server.CustomOperators) > 0 {
		f["customOperators"] = server.CustomOperators
	}
	unless(f, "instances", server.Instances, 0)
	unless(f, "threads", server.Threads, 0)
	unless(f, "startupTimeoutSeconds", server.StartupTimeoutSeconds, 600)
	unless(f, "isolated", server.Isolated, false)
	unless(f, "graphOptimization", server.GraphOptimization, "All")
	unless(f, "hooks", server.Hooks, false)
	unless(f, "image", server.Image, "")
	unless(f, "serviceAccountName", server.ServiceAccountName, "")
	return f
}

func resourcesIntent(resources Resources) fields {
	f := fields{}
	unless(f, "gpu", resources.GPU, 0)
	unless(f, "gpuResource", resources.GPUResource, "nvidia.com/gpu")
	unless(f, "cpu", resources.CPU.String(), "1")
	if resources.CPULimit != nil {
		f["cpuLimit"] = resources.CPULimit.String()
	}
	unless(f, "memory", resources.Memory.String(), "2Gi")
	unless(f, "modelStorage", resources.ModelStorage.String(), "10Gi")
	if len(resources.NodeSelector) > 0 {
		f["nodeSelector"] = resources.NodeSelector
	}
	if len(resources.Tolerations) > 0 {
		f["tolerations"] = resources.Tolerations
	}
	unless(f, "priorityClassName", resources.PriorityClassName, "")
	if resources.RuntimeClassName != nil {
		f["runtimeClassName"] = *resources.RuntimeClassName
	}
	return f
}
