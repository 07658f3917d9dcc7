package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type statusCommand struct{}

// Help is what status --help adds.
func (*statusCommand) Help() string {
	return "Of several replicas it shows the one that answers. Exits with 1 if that one cannot issue."
}

func (c *statusCommand) Run(a *api) error {
	s, err := a.fleet.GetStatus(a.ctx, &stokerv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if a.json {
		err = a.object(s)
	} else {
		err = a.printStatus(s)
	}
	if err == nil && !s.GetReady() {
		err = errors.New("the broker cannot issue: " + s.GetProblem())
	}
	return err
}

// printStatus prints one screen.
func (a *api) printStatus(s *stokerv1.GetStatusResponse) error {
	now := s.GetTime().AsTime()
	ready := "ready"
	if !s.GetReady() {
		ready = "NOT READY: " + s.GetProblem()
	}
	least := "no credential yet"
	if s.GetEmptiest() != nil {
		least = brief(s.GetEmptiest()) + " left in the emptiest"
	}
	err := show(a.output, []column[*stokerv1.GetStatusResponse]{
		fact("BROKER", "%s, up %s, %s", s.GetVersion(), span(now.Sub(s.GetStartTime().AsTime())), ready),
		fact("REPLICAS", "%s", replicas(s)),
		fact("STREAMS", "%d", s.GetStreams()),
		fact("LEASES", "%d, %d dry, %s", s.GetLeases(), s.GetLeasesDry(), least),
		fact("LAST MINUTE", "%d renewed, %d first credentials", s.GetRenewedLastMinute(), s.GetIssuedLastMinute()),
		fact("REVOCATIONS", "%d pending, %d failed on AWS", s.GetRevocationsPending(), s.GetRevocationsFailed()),
	}, s)
	if err != nil {
		return err
	}
	for _, part := range []func(*stokerv1.GetStatusResponse, time.Time) error{a.printAccounts, a.printCertificates, a.printDry, a.printExpiring} {
		if _, err := fmt.Fprintln(a.out); err != nil {
			return err
		}
		if err := part(s, now); err != nil {
			return err
		}
	}
	return nil
}

// fact is a line of a message that is put together from several fields.
func fact(title, format string, args ...any) column[*stokerv1.GetStatusResponse] {
	return column[*stokerv1.GetStatusResponse]{title: title, value: func(*stokerv1.GetStatusResponse) string { return fmt.Sprintf(format, args...) }}
}

func replicas(s *stokerv1.GetStatusResponse) string {
	var names []string
	for _, r := range s.GetReplicas() {
		name := r.GetWriter() + " since " + at(r.GetStartTime())
		if r.GetAnswering() {
			name += " (this one)"
		}
		names = append(names, name)
	}
	return strings.Join(append([]string{strconv.Itoa(len(names))}, names...), "; ")
}

func (a *api) printAccounts(s *stokerv1.GetStatusResponse, _ time.Time) error {
	return a.table([]string{"ACCOUNT", "METHOD", "REGION", "STS", "BUDGET", "DUE", "WAITING", "IN FLIGHT", "LAG"}, func(row func(...string)) {
		for _, v := range s.GetAccounts() {
			sts := "answers"
			if v.GetDown() {
				sts = "DOWN"
			}
			row(v.GetName(), v.GetMethod(), v.GetRegion(), sts, fmt.Sprintf("%.4g of %.4g/s", v.GetBudget(), v.GetLimit()),
				number(v.GetDue()), number(v.GetWaiting()), number(v.GetInFlight()), brief(v.GetLag()))
		}
	})
}

func (a *api) printCertificates(s *stokerv1.GetStatusResponse, now time.Time) error {
	return a.table([]string{"BROKER'S OWN", "EARLIEST END", "LEFT", "PROBLEM"}, func(row func(...string)) {
		for _, v := range s.GetCertificates() {
			row(v.GetPart(), at(v.GetExpireTime()), left(v.GetExpireTime(), now), v.GetProblem())
		}
	})
}

func (a *api) printDry(s *stokerv1.GetStatusResponse, now time.Time) error {
	if s.GetDrySoonTotal() == 0 {
		_, err := fmt.Fprintln(a.out, "leases that run dry in the next 15 minutes: 0")
		return err
	}
	if _, err := fmt.Fprintf(a.out, "leases that run dry in the next 15 minutes: %s\n", countOf(len(s.GetDrySoon()), s.GetDrySoonTotal())); err != nil {
		return err
	}
	return a.table([]string{"AGENT", "USER", "GRANT", "LEFT", "PROBLEM", "NEXT ATTEMPT"}, func(row func(...string)) {
		for _, v := range s.GetDrySoon() {
			remaining := left(v.GetExpireTime(), now)
			if v.GetExpireTime() == nil {
				remaining = "none yet"
			}
			row(v.GetTenant()+"/"+v.GetAgent(), v.GetLogin(), v.GetGrant(), remaining, v.GetProblem(), at(v.GetRetryTime()))
		}
	})
}

func (a *api) printExpiring(s *stokerv1.GetStatusResponse, now time.Time) error {
	if s.GetExpiringTotal() == 0 {
		_, err := fmt.Fprintln(a.out, "connected agents that do not renew their certificates: 0")
		return err
	}
	if _, err := fmt.Fprintf(a.out, "connected agents that do not renew their certificates: %s\n", countOf(len(s.GetExpiring()), s.GetExpiringTotal())); err != nil {
		return err
	}
	return a.table([]string{"AGENT", "CERTIFICATE", "LEFT", "END"}, func(row func(...string)) {
		for _, v := range s.GetExpiring() {
			row(v.GetTenant()+"/"+v.GetAgent(), v.GetCertificateSerial(), left(v.GetExpireTime(), now), at(v.GetExpireTime()))
		}
	})
}

// countOf counts a list, which may have been cut.
func countOf(shown int, total int64) string {
	if int64(shown) == total {
		return number(total)
	}
	return fmt.Sprintf("%d, of which the first %d", total, shown)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// brief shows a duration without fractions.
func brief(d *durationpb.Duration) string { return span(d.AsDuration()) }
