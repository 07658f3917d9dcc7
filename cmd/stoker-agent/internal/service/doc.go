// Package service runs the agent under the service manager of Windows, and
// registers it there. Elsewhere a unit of systemd or a plist of launchd does, which
// needs no code.
//
// It owns the conversation with the manager: what is asked of a service and what
// it answers, and when. What the service does is its caller's. The system itself is
// behind Manager and Supervise's channels, so that all but the calls is tested on
// any system.
package service
