package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"

	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/agent"
)

// The exit codes of status, besides 0 for an agent that is healthy.
const (
	exitUnhealthy = 1
	exitNoAgent   = 3
)

// statusCommand asks the running agent how it stands.
type statusCommand struct {
	Config string `env:"STOKER_CONFIG" placeholder:"FILE" help:"The agent's configuration file, if its socket is named there."`
	Socket string `env:"STOKER_SOCKET" placeholder:"PLACE" help:"The agent's socket or pipe. Without it, the user's own and then the machine's (${sockets})."`
	Output string `short:"o" enum:"text,json" default:"text" help:"Output format: text or json."`
}

// Help implements kong's interface for more help.
func (statusCommand) Help() string {
	return `The exit code is 0 if the agent is healthy, 1 if somebody needs to do something (the
lines with ! say what), and 3 if no agent is running. A broker that is away makes an
agent unhealthy once a credential has less than a quarter of its life left.`
}

// Run implements the command.
func (c statusCommand) Run(ctx context.Context, to *surroundings) error {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	defer stop()
	places, err := c.places()
	if err != nil {
		return err
	}
	body, err := ask(ctx, places, func(ctx context.Context, place string) ([]byte, error) {
		return delivery.AskLocalFor(ctx, place, agent.StatusPath)
	})
	if errors.Is(err, delivery.ErrNoAgent) {
		return &codedError{code: exitNoAgent, err: fmt.Errorf("%w; \"stoker-agent run\" starts one", err)}
	}
	if err != nil {
		return err
	}
	var report agent.Report
	if err := json.Unmarshal(body, &report); err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	if c.Output == "json" {
		encoder := json.NewEncoder(to.out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = report.Print(to.out)
	}
	if err == nil && !report.Healthy {
		return &codedError{code: exitUnhealthy}
	}
	return err
}

// places are where to look for the agent, in order.
func (c statusCommand) places() ([]string, error) {
	if c.Socket != "" {
		return []string{c.Socket}, nil
	}
	f, err := connection{Config: c.Config}.file()
	if err != nil {
		return nil, err
	}
	if f != nil && f.Socket != "" {
		return []string{f.Socket}, nil
	}
	return socketPlaces(), nil
}

// ask asks the first agent that there is.
func ask[T any](ctx context.Context, places []string, question func(context.Context, string) (T, error)) (T, error) {
	var none T
	var away error
	for _, place := range places {
		answer, err := question(ctx, place)
		if err == nil || !errors.Is(err, delivery.ErrNoAgent) {
			return answer, err
		}
		if away == nil {
			away = err
		}
	}
	return none, away
}
