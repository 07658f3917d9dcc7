package hook

import "os/exec"

// separate leaves the command as it is: it is killed where it takes too long. What
// it has started by itself goes on.
func separate(*exec.Cmd) {}

func sweep(*exec.Cmd) {}
