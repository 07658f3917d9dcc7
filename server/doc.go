// Package server is the broker: its configuration, how its parts are wired,
// and how it starts and stops.
//
// It owns Config, New and Run. It is the one place where parts meet: nothing
// below it reads flags, files of configuration or the environment. What the
// parts do is theirs; this package never decides who may have what.
package server
