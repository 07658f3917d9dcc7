// Package config reads stoker-agent.yaml, the file of an agent that serves several
// users or that runs as a service.
//
// It owns the format and the checks, whose findings it reports all at once, each
// with its line. It opens no connection and starts nothing.
package config
