package enrollment

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Each minute's first refusals are recorded, and the others in sum at its end.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sums []count
		c := newCrowd(func(_ context.Context, s count) { sums = append(sums, s) })
		refuse := func(n int) (recorded int) {
			for i := range n {
				if c.admit(fmt.Sprintf("192.0.2.%d:1", i%250), "JOIN_TOKEN_INVALID") {
					recorded++
				}
			}
			return recorded
		}
		if n := refuse(crowdRecords); n != crowdRecords {
			t.Errorf("%d of the first %d are recorded", n, crowdRecords)
		}
		<-time.After(crowdInterval / 2)
		if n := refuse(1000); n != 0 {
			t.Errorf("%d of the next are recorded", n)
		}
		<-time.After(crowdInterval / 2)
		synctest.Wait()
		if len(sums) != 1 || sums[0].total != 1000 || len(sums[0].addresses) != 250 || sums[0].last.Before(sums[0].first) {
			t.Fatalf("sums %+v", sums)
		}
		if n := refuse(crowdRecords + 5); n != crowdRecords {
			t.Errorf("%d are recorded in the next minute", n)
		}
		c.close(t.Context())
		if len(sums) != 2 || sums[1].total != 5 {
			t.Errorf("sums %+v", sums)
		}
		<-time.After(2 * crowdInterval)
		if len(sums) != 2 {
			t.Error("something was summed after the end")
		}
	})
}

// However many addresses there are, what is remembered of them is bounded.
func TestCrowdIsBounded(t *testing.T) {
	var sum count
	sum.addresses, sum.reasons = map[string]int{}, map[string]int{}
	for i := range crowdAddresses + 100 {
		sum.add(fmt.Sprintf("2001:db8:%x:%x::", i>>16, i&0xffff), "JOIN_TOKEN_INVALID", time.Now())
	}
	detail := sum.detail()
	if detail["addresses"] != "10000 or more" || detail["unrecorded"] != "10100" || len(detail) != 5+crowdNamed {
		t.Errorf("%v", detail)
	}
}
