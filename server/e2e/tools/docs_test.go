//go:build unix

package tools_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stokerd/stoker/internal/docpage"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// documented compares a part of docs/tools.md with what a test saw. With
// STOKER_UPDATE_DOCS set, it writes it anew instead.
func documented(t *testing.T, part, want string) {
	t.Helper()
	if t.Failed() {
		return // what was seen is not what should be told
	}
	if err := docpage.Keep("../../../docs/tools.md", part, want); err != nil {
		t.Error(err)
	}
}

// reasons number why something does not work, in the order in which they come.
type reasons []string

func (r *reasons) number(why string) int {
	if n := slices.Index(*r, why); n >= 0 {
		return n + 1
	}
	*r = append(*r, why)
	return len(*r)
}

// matrixTable is the table of what was seen.
func matrixTable(seen map[string]outcome) string {
	var out strings.Builder
	var why reasons
	out.WriteString("| tool |")
	for w := range ways {
		fmt.Fprintf(&out, " %s |", wayTexts[w].title)
	}
	out.WriteString("\n|---|" + strings.Repeat("---|", int(ways)) + "\n")
	for _, k := range catalog {
		fmt.Fprintf(&out, "| %s |", k.name)
		for w := range ways {
			got := seen[cellName(k, w)]
			fmt.Fprintf(&out, " %s", got)
			if got != refreshes {
				fmt.Fprintf(&out, " (%d)", why.number(k.expect[w].why))
			}
			out.WriteString(" |")
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	for i, text := range why {
		fmt.Fprintf(&out, "%d. It %s.\n", i+1, text)
	}
	return out.String()
}

// example are the values that the page shows for placeholders.
var example = map[string]string{
	"endpoint": "http://127.0.0.1:9797/v1/credentials", "token": `"$(cat /run/stoker-agent/token)"`, "token_file": "/run/stoker-agent/token",
	"grant": "nightly", "s3": "https://s3.example.com", "s3_host": "s3.example.com", "bucket": "backups", "prefix": "acme/", "run": "",
	"home": "$HOME",
}

// wayTable shows the settings of each way, as the tests use them.
func wayTable() string {
	var out strings.Builder
	for w := range ways {
		s := settingsOf[w]
		fmt.Fprintf(&out, "**%s**\n\n```\n", strings.Trim(wayTexts[w].title, "`"))
		for _, e := range s.env {
			fmt.Fprintf(&out, "export %s\n", fill(e, example))
		}
		if s.config != "" {
			fmt.Fprintf(&out, "# ~/.aws/config, and for restic ~/.aws/credentials\n%s", fill(s.config, example))
		}
		if s.wrap != "" {
			fmt.Fprintf(&out, "%sCOMMAND\n", fill(s.wrap, example))
		}
		out.WriteString("```\n\n")
	}
	return out.String()
}

// commandTable shows what each tool was run with.
func commandTable() string {
	var out strings.Builder
	for _, k := range catalog {
		if k.shown == "" {
			continue
		}
		values := map[string]string{"program": k.shown}
		for name, value := range example {
			values[name] = value
		}
		fmt.Fprintf(&out, "**%s**", k.name)
		if k.needs() != accessBackup {
			fmt.Fprintf(&out, " (needs the access `%s`)", accessName(k.needs()))
		}
		out.WriteString("\n\n```\n")
		for _, e := range k.env {
			fmt.Fprintf(&out, "export %s\n", fill(e, values))
		}
		for _, c := range append(slices.Clone(k.before), k.command) {
			if c.line == "" {
				continue
			}
			fmt.Fprintf(&out, "%s\n", fill(c.line, values))
		}
		out.WriteString("```\n\n")
	}
	return out.String()
}

// accessTable is what was seen of one tool's steps.
func accessTable(steps []step, seen []bool) string {
	type row struct {
		title string
		cells map[stokerv1.Access]string
	}
	var rows []*row
	var notes reasons
	for i, s := range steps {
		if s.title == "" {
			continue
		}
		at := slices.IndexFunc(rows, func(r *row) bool { return r.title == s.title })
		if at < 0 {
			at = len(rows)
			rows = append(rows, &row{title: s.title, cells: make(map[stokerv1.Access]string)})
		}
		text := "no"
		if seen[i] {
			text = "yes"
		}
		if s.note != "" {
			text += fmt.Sprintf(" (%d)", notes.number(s.note))
		}
		rows[at].cells[s.access] = text
	}
	var out strings.Builder
	out.WriteString("| |")
	for _, a := range accesses {
		fmt.Fprintf(&out, " `%s` |", accessName(a))
	}
	out.WriteString("\n|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s |", r.title)
		for _, a := range accesses {
			fmt.Fprintf(&out, " %s |", r.cells[a])
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	for i, text := range notes {
		fmt.Fprintf(&out, "%d. %s.\n", i+1, text)
	}
	return out.String()
}

// spotList names tools with their ways, as sentences of the page do.
func spotList(t *testing.T, c *crew) string {
	t.Helper()
	var out strings.Builder
	for _, one := range c.cells {
		fmt.Fprintf(&out, "- %s, by %s\n", one.tool.name, wayTexts[one.way].title)
	}
	return out.String()
}
