// Package iamsimulate asks an evaluator of IAM policies that shares no code with
// this project what policies allow: the npm package @cloud-copilot/iam-simulate.
//
// It owns the way to ask: one Node process for many questions. The package is
// under the AGPL, so it runs as a process of its own, in tests only, and is no
// part of what is built. `make partners` installs it.
package iamsimulate
