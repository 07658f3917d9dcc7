package agent

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report for people.
func (r Report) Print(w io.Writer) error {
	verdict := "healthy"
	if !r.Healthy {
		verdict = "NOT HEALTHY"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "stoker-agent\t%s: version %s, process %d, since %s\n", verdict, r.Version, r.PID, stamp(r.Started))
	if r.ConfigFile != "" {
		fmt.Fprintf(table, "configuration\t%s\n", r.ConfigFile)
	}
	fmt.Fprintf(table, "endpoint\t%s\n", r.Endpoint)
	if r.Certificate != nil {
		fmt.Fprintf(table, "certificate\t%s\n", r.Certificate.Certificate)
	}
	if r.CredentialsFile != nil {
		fmt.Fprintf(table, "credentials file\t%s\n", r.CredentialsFile.Path)
	}
	for _, u := range r.Users {
		fmt.Fprintf(table, "%s\t%s\n", u.Login, u.line())
		if u.LastError != nil && u.Error == nil {
			fmt.Fprintf(table, "\tlast error %s: %s\n", stamp(u.LastError.Time), u.LastError)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := r.printGrants(w); err != nil {
		return err
	}
	for _, complaint := range r.Complaints {
		if _, err := fmt.Fprintf(w, "! %s\n", complaint); err != nil {
			return err
		}
	}
	return nil
}

// line says how a user's stream stands.
func (u User) line() string {
	switch {
	case u.Connected:
		return fmt.Sprintf("connected to %s since %s, as agent %s", u.Broker, stamp(u.Since), u.Agent)
	case u.Since.IsZero():
		return "not connected yet"
	case u.Error == nil:
		return fmt.Sprintf("not connected since %s; connecting again at %s", stamp(u.Since), stamp(u.RetryTime))
	}
	return fmt.Sprintf("not connected since %s: %s; connecting again at %s", stamp(u.Since), u.Error, stamp(u.RetryTime))
}

func (r Report) printGrants(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\nUSER\tGRANT\tSTATE\tLEFT\tEXPIRES\tRENEWED\tLEADS TO\tHOOK\tLAST ERROR\n")
	for _, u := range r.Users {
		for _, g := range u.Grants {
			left := "-"
			if g.SecondsLeft > 0 {
				left = (time.Duration(g.SecondsLeft) * time.Second).String()
			}
			fmt.Fprintln(table, strings.Join([]string{
				u.Login, g.Name, g.State, left, stamp(g.Expires), stamp(g.Renewed), orDash(g.Target), g.Hook.word(), g.lastError(),
			}, "\t"))
		}
	}
	return table.Flush()
}

// word says how a hook ended.
func (h *HookRun) word() string {
	switch {
	case h == nil:
		return "-"
	case h.Error != "":
		return h.Event + " failed"
	}
	return h.Event
}

// lastError gives what is wrong, or else what last was.
func (g Grant) lastError() string {
	switch {
	case g.LastError != nil:
		return stamp(g.LastError.Time) + " " + g.LastError.String()
	case g.Error != nil:
		return g.Error.String()
	}
	return "-"
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// stamp writes a time; a dash for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
