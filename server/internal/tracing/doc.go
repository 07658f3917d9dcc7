// Package tracing shows the work for a credential as OpenTelemetry spans: from
// the call that waits for it through the queue to the STS and the audit trail.
//
// It owns the exporter and what is written into spans: names, ids, counts and
// reasons, never a secret, a policy or an error's text. It decides nothing. A
// nil *Tracing is tracing that is off, and costs nothing.
package tracing
