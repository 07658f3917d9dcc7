package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is what completion --help adds.
func (*completionCommand) Help() string {
	return "Load it with `source <(stokerctl completion bash)`, the same with zsh, or `stokerctl completion fish | source`."
}

// The scripts ask stokerctl itself what may come next, so that they stay true.
var completionScripts = map[string]string{
	"bash": `_stokerctl() {
  COMPREPLY=($(compgen -W "$(stokerctl __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _stokerctl stokerctl
`,
	"zsh": `_stokerctl() {
  local -a found
  found=(${(f)"$(stokerctl __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  compadd -a found || _files
}
compdef _stokerctl stokerctl
`,
	"fish": `complete -c stokerctl -a '(stokerctl __complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}

func (c *completionCommand) Run(out io.Writer) error {
	_, err := io.WriteString(out, completionScripts[c.Shell])
	return err
}

type completeWordCommand struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run prints what may stand in place of the last word. It asks no broker.
func (c *completeWordCommand) Run(out io.Writer, app *kong.Application) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	for _, candidate := range complete(app.Node, words) {
		if _, err := fmt.Fprintln(out, candidate); err != nil {
			return err
		}
	}
	return nil
}

// complete lists the commands, flags and values that may stand in place of the
// last word.
func complete(node *kong.Node, words []string) []string {
	last := words[len(words)-1]
	var flag *kong.Flag // that waits for its value
	flags := slices.Clone(node.Flags)
	for _, word := range words[:len(words)-1] {
		if flag != nil {
			flag = nil
			continue
		}
		if strings.HasPrefix(word, "-") {
			if found := findFlag(flags, word); found != nil && !found.IsBool() && !strings.Contains(word, "=") {
				flag = found
			}
			continue
		}
		if child := findChild(node, word); child != nil {
			node = child
			flags = append(flags, child.Flags...)
		}
	}
	var candidates []string
	switch {
	case flag != nil:
		candidates = values(flag.Value)
	case strings.HasPrefix(last, "-"):
		for _, f := range flags {
			if !f.Hidden {
				candidates = append(candidates, "--"+f.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if !child.Hidden {
				candidates = append(candidates, child.Name)
			}
		}
		for _, positional := range node.Positional {
			candidates = append(candidates, values(positional)...)
		}
	}
	candidates = slices.DeleteFunc(candidates, func(s string) bool { return !strings.HasPrefix(s, last) })
	slices.Sort(candidates)
	return candidates
}

func values(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

func findFlag(flags []*kong.Flag, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, f := range flags {
		if f.Name == name || len(name) == 1 && f.Short == rune(name[0]) {
			return f
		}
	}
	return nil
}

func findChild(node *kong.Node, word string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == word {
			return child
		}
	}
	return nil
}
