// Package dev runs a whole throw-away Stoker on one machine: a local STS, a
// broker with its own certificate authority, and a demo tenant. It needs no
// AWS account and keeps nothing.
//
// It owns what is insecure: well-known names, keys in a directory, an STS that
// no S3 believes. Nothing outside of development uses it.
package dev
