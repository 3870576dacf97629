package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

const (
	labelManagedBy    = "app.kubernetes.io/managed-by"
	managedBy         = "modelpier"
	labelName         = "app.kubernetes.io/name"
	labelDeployment   = "modelpier.dev/deployment"
	labelPodSet       = "modelpier.dev/pod-set"
	labelPodSetHash   = "modelpier.dev/pod-set-hash"
	labelRevisionHash = "modelpier.dev/revision-hash"

	annotationRevision = "modelpier.dev/revision"
	annotationStarted  = "modelpier.dev/started"
	annotationSelected = "modelpier.dev/selected"

	planKeyInConfigMap      = "plan.json"
	signatureKeyInConfigMap = "plan.sig"

	app = "modelpier-server"

	nameLimit = 253
	// dnsLabelLimit is what a pod's hostname must keep to; a pod set's name leaves room for the pods' suffixes.
	dnsLabelLimit = 63
	podSetLimit   = dnsLabelLimit - 17
)

// Names are what the objects of one ModelDeployment are called.
type Names struct {
	revisionHash, podSetHash      string
	revision, podSet, plan        string
	serviceAccount, networkPolicy string
}

// digest is the first ten hexadecimal digits of the sha256 of the value's JSON, whose keys Go sorts for maps.
func digest(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // every caller passes plain data
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])[:10]
}

// capped is "stem-suffix", the stem cut and marked with its own hash where it is too long.
func capped(stem, suffix string, limit int) string {
	room := limit - len(suffix) - 1
	if len(stem) <= room {
		return stem + "-" + suffix
	}
	sum := sha256.Sum256([]byte(stem))
	return fmt.Sprintf("%s-%s-%s", strings.TrimRight(stem[:room-7], "-."), hex.EncodeToString(sum[:])[:6], suffix)
}
