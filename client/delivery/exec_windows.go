package delivery

import "os"

// forwarded holds the one signal there is. It is caught and not passed on: the
// console sends Ctrl+C to every process attached to it, the command included.
var forwarded = []os.Signal{os.Interrupt}

func forward(*os.Process, os.Signal) {}

// terminate ends the command at once; Windows has no way to ask.
func terminate(process *os.Process) { _ = process.Kill() }

func exitCode(state *os.ProcessState) int { return state.ExitCode() }
