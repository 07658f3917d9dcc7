package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

type applyCommand struct {
	File   string `short:"f" required:"" placeholder:"FILE" help:"YAML file with the resources; - is standard input."`
	DryRun bool   `help:"Show what would be done, and do nothing."`
}

// Help is what apply --help adds.
func (*applyCommand) Help() string {
	return "What the file leaves out is left alone; nothing is ever deleted. New users get the password in their password_file, " +
		"or one that the broker makes and this command prints once. Applying a file a second time does nothing. " +
		"See docs/stokerctl.md for the file."
}

func (c *applyCommand) Run(a *api) error {
	file, doc, err := readResourceFile(c.File, a.in)
	if err != nil {
		return err
	}
	dir := "."
	if c.File != "-" {
		dir = filepath.Dir(c.File)
	}
	p := &planner{api: a, file: file, doc: doc, dir: dir}
	if err := p.plan(); err != nil {
		return err
	}
	if a.json {
		return p.carryOutQuietly(c.DryRun)
	}
	if err := p.print(); err != nil || c.DryRun || len(p.steps) == 0 {
		return err
	}
	if err := a.confirm("make these %d changes", len(p.steps)); err != nil {
		return err
	}
	return p.carryOut(func(s *step) error {
		verb := map[string]string{actionCreate: "created", actionUpdate: "updated"}[s.Action]
		if _, err := fmt.Fprintf(a.out, "%s %s\n", verb, s.Resource); err != nil {
			return err
		}
		if s.GeneratedPassword == "" {
			return nil
		}
		_, err := fmt.Fprintf(a.out, "    password: %s\n", s.GeneratedPassword)
		return err
	})
}

// carryOut does the steps until one fails, and tells of each when it is done:
// a password that was made must not be lost with a later step's failure.
func (p *planner) carryOut(tell func(*step) error) error {
	for i, s := range p.steps {
		generated, err := s.do()
		if err != nil {
			return &partialError{done: i, of: len(p.steps), at: s.Action + " " + s.Resource, cause: err}
		}
		s.Done, s.GeneratedPassword = true, generated
		if err := tell(s); err != nil {
			return err
		}
	}
	return nil
}

// partialError says how far apply came.
type partialError struct {
	done, of int
	at       string
	cause    error
}

func (e *partialError) Error() string { return e.at + ": " + e.cause.Error() }
func (e *partialError) Unwrap() error { return e.cause }

// carryOutQuietly is for programs: one JSON object at the end, also of a
// failure.
func (p *planner) carryOutQuietly(dryRun bool) error {
	var failure error
	if !dryRun && len(p.steps) > 0 {
		if failure = p.confirm("make %d changes", len(p.steps)); failure != nil {
			return failure
		}
		failure = p.carryOut(func(*step) error { return nil })
	}
	steps := p.steps
	if steps == nil {
		steps = []*step{}
	}
	err := p.printJSON(map[string]any{"dryRun": dryRun, "unchanged": p.unchanged, "steps": steps})
	if failure != nil {
		return failure
	}
	return err
}

// print shows what is to be done, for people.
func (p *planner) print() error {
	var b strings.Builder
	created := 0
	for _, s := range p.steps {
		sign := "~"
		if s.Action == actionCreate {
			sign = "+"
			created++
		}
		fmt.Fprintf(&b, "%s %s\n", sign, s.Resource)
		for _, d := range s.Changes {
			if s.Action == actionCreate {
				fmt.Fprintf(&b, "    %s: %s\n", d.Field, shown(d.To))
			} else {
				fmt.Fprintf(&b, "    %s: %s -> %s\n", d.Field, shown(d.From), shown(d.To))
			}
		}
	}
	fmt.Fprintf(&b, "%d to create, %d to update, %d unchanged\n", created, len(p.steps)-created, p.unchanged)
	_, err := fmt.Fprint(p.out, b.String())
	return err
}

// shown makes an empty value visible and others safe.
func shown(value string) string {
	if value == "" {
		return "''"
	}
	return clean(value)
}
