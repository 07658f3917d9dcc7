package main

import (
	"fmt"
	"os"
	"time"

	"github.com/stokerd/stoker/server/bench"
)

type planCommand struct {
	Agents     int           `required:"" help:"How many agents, with one stream and one grant each."`
	Lifetime   time.Duration `default:"1h" help:"Lifetime of credentials."`
	Outage     time.Duration `default:"20m" help:"How long STS may be away at once."`
	Back       time.Duration `default:"1m" help:"How soon all are to be connected again after all brokers were lost."`
	Memory     float64       `default:"4" help:"Memory of one broker in GiB."`
	Cores      float64       `default:"2" help:"Cores of one broker."`
	Streams    int           `default:"19000" help:"Streams of one broker: its limit of descriptors, less a thousand."`
	QuotaShare float64       `default:"0.5" help:"How much of the STS quota the brokers may use."`
}

func (c *planCommand) Run() error {
	plan, err := bench.MakePlan(bench.Situation{
		Agents: c.Agents, Lifetime: c.Lifetime, Outage: c.Outage, Back: c.Back,
		Memory: c.Memory * (1 << 30), Cores: c.Cores, Streams: c.Streams, QuotaShare: c.QuotaShare,
	}, bench.MeasuredCosts)
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	return plan.WriteTable(os.Stdout)
}
