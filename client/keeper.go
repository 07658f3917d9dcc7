package client

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/stokerd/stoker/internal/atomicfile"
	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

const (
	// lookEvery is how often the certificate's files and the clocks are looked
	// at. A timer for weeks would be wrong after a suspension, or after a clock
	// was set.
	lookEvery = time.Minute
	// The ceiling of the delay between attempts to renew, half of which is drawn,
	// at first and at most. It is no more than a tenth of the life that is left,
	// down to the least.
	firstRenewalDelay   = time.Minute
	longestRenewalDelay = time.Hour
	leastRenewalDelay   = 10 * time.Second
	// soonPart is the part of its life after which a certificate that is not
	// renewed is complained of.
	soonPart = 0.9
)

var (
	errEnded = &Error{Message: "the certificate has ended: enroll again, or replace its files"}
	errSoon  = &Error{Message: "the certificate ends soon and is not renewed from here: replace its files"}
)

// keeper follows the files of a source's certificate. It renews the certificate
// where it may, and moves the stream to one that was replaced, whoever did that.
// It runs on a goroutine of its own, which its fields belong to.
type keeper struct {
	source *Source
	files  Files
	renews bool // until it turns out that it cannot

	pair    pair
	present Certificate // the pair's
	trouble string      // what is wrong with the files, as last told
	told    bool        // how it stands, once at least
	warned  *Error      // what was last complained of about the present one's end

	failures int
	retry    time.Time // monotonic: no attempt to renew before
	pace     pace
	again    time.Time // monotonic: no attempt to move before
}

// keep starts a keeper if the certificate is in files.
func (s *Source) keep(ctx context.Context) {
	if s.config.CertFile == "" {
		return
	}
	k := &keeper{
		source: s, files: Files{Certificate: s.config.CertFile, Key: s.config.KeyFile}, renews: s.config.Renew, pace: newPace(),
	}
	s.parts.Go(func() { k.run(ctx) })
}

func (k *keeper) run(ctx context.Context) {
	if problem := k.begin(); problem != nil {
		k.look()
		k.tell(problem, time.Time{})
	}
	for {
		k.look()
		if k.due() {
			k.renew(ctx)
		}
		k.advance(ctx)
		timer := time.NewTimer(k.wait())
		select {
		case <-timer.C:
		case <-k.source.welcomed: // perhaps with an older certificate than the files have by now
		case <-k.source.nudge:
			k.retry, k.again = time.Time{}, time.Time{}
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// begin finds out at the start, and not in weeks, whether the files can be
// replaced, and cleans up after a crash.
func (k *keeper) begin() *Error {
	if !k.renews {
		return nil
	}
	_, err := k.files.replaceable()
	if err == nil {
		err = k.files.tidy()
	}
	if !cannotReplace(err) {
		return nil // or something that may pass
	}
	k.renews = false
	return &Error{Message: "the certificate is not renewed from here, since its files cannot be replaced: " + printable(err.Error()), cause: err}
}

// cannotReplace says whether replacing files failed in a way that another time
// will not help.
func cannotReplace(err error) bool {
	return asError(err) == nil &&
		(errors.Is(err, errNotOurs) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS))
}

// look reads the files.
func (k *keeper) look() {
	p, err := loadPair(k.files.Certificate, k.files.Key)
	switch {
	case err != nil:
		if k.trouble != err.Error() {
			k.trouble = err.Error()
			k.tell(&Error{Transient: true, Message: printable(err.Error()), cause: err}, time.Time{})
		}
	case p.thumbprint != k.pair.thumbprint:
		k.adopt(p)
	case k.trouble != "":
		k.trouble = ""
		k.tell(nil, time.Time{})
	}
	k.warn()
}

// adopt takes note of another certificate.
func (k *keeper) adopt(p pair) {
	k.pair, k.present, k.trouble, k.warned = p, describe(p.certificate.Leaf), "", nil
	k.failures, k.retry, k.again = 0, time.Time{}, time.Time{}
	k.pace.reset()
	k.tell(nil, time.Time{})
}

// warn complains, once, where nothing is done about the certificate's end, and
// again at the end.
func (k *keeper) warn() {
	now, c := k.source.now(), k.present
	if c.Expires.IsZero() {
		return
	}
	var complaint *Error
	soon := c.NotBefore.Add(time.Duration(soonPart * float64(c.Expires.Sub(c.NotBefore))))
	switch {
	case !now.Before(c.Expires):
		complaint = errEnded
	case !k.renews && now.After(soon):
		complaint = errSoon
	}
	if complaint != nil && complaint != k.warned {
		k.warned = complaint
		k.tell(complaint, time.Time{})
	}
}

// tell tells everybody how the certificate stands. again is when what failed is
// tried again, zero: when the files change. What is so at the start, and well, is
// no event: it is only logged.
func (k *keeper) tell(problem *Error, again time.Time) {
	s, c := k.source, k.present
	if !k.renews {
		c.RenewTime = time.Time{}
	}
	event := Event{Kind: EventCertificate, Time: time.Now(), Certificate: c, RetryTime: again}
	if problem != nil {
		event.Err = problem
	}
	happened := k.told || problem != nil
	k.told = true
	s.apply(func() *Event {
		s.certificate = event
		if !happened {
			return nil
		}
		return &event
	})
	if !happened {
		s.logEvent(event)
	}
}

// due says whether to renew now. The broker's clock counts, as far as it is
// known: it is the one that a certificate is judged by.
func (k *keeper) due() bool {
	now := k.source.now()
	return k.renews && k.trouble == "" && !now.Before(k.present.RenewTime) && now.Before(k.present.Expires) &&
		!time.Now().Before(k.retry)
}

// wait is how long until there is something to do or to look at.
func (k *keeper) wait() time.Duration {
	wait := lookEvery
	if until := k.present.RenewTime.Sub(k.source.now()); k.renews && until > 0 {
		wait = min(wait, until)
	}
	for _, at := range []time.Time{k.retry, k.again} {
		if until := time.Until(at); until > 0 {
			wait = min(wait, until)
		}
	}
	return wait
}

// renew tries once.
func (k *keeper) renew(ctx context.Context) {
	err := k.attempt(ctx)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errReplaced):
		k.look()
	case err == nil:
		k.look()
		// However wrong a clock is, it must not make us renew all the time.
		k.retry = time.Now().Add(min(longestRenewalDelay, k.present.Expires.Sub(k.present.NotBefore)/10))
	case errors.Is(err, atomicfile.ErrLocked):
		// Another process of ours is at it: the next look shows what came of it.
		k.retry = time.Now().Add(lookEvery)
	case ReasonOf(err) == ReasonNoAuthority, cannotReplace(err):
		k.renews = false
		k.tell(annotated("the certificate is not renewed from here", err), time.Time{})
	default:
		problem := annotated("the certificate was not renewed", err)
		k.retry = time.Now().Add(k.delay(problem))
		k.failures++
		k.tell(problem, k.retry)
	}
}

// delay is how long to wait after a failure.
func (k *keeper) delay(problem *Error) time.Duration {
	ceiling := min(firstRenewalDelay<<min(k.failures, 10), longestRenewalDelay)
	if problem.final() {
		ceiling = longestRenewalDelay
	}
	left := k.present.Expires.Sub(k.source.now())
	ceiling = max(min(ceiling, left/10), leastRenewalDelay)
	// The broker's advice is followed unless it leads past the end.
	return min(k.pace.advice(problem)+ceiling/2+k.pace.random(ceiling/2), max(left/2, leastRenewalDelay))
}

// annotated says what an error kept from being done.
func annotated(what string, err error) *Error {
	e := Error{Transient: true, Message: printable(err.Error()), cause: err}
	if known := asError(err); known != nil {
		e = *known
	}
	e.Message = what + ": " + e.Message
	return &e
}

// errReplaced says that the files have another certificate than the one that was
// to be renewed.
var errReplaced = errors.New("the certificate was replaced meanwhile")

// attempt renews the certificate and replaces its files.
func (k *keeper) attempt(ctx context.Context) (err error) {
	asked, err := newRequest()
	if err != nil {
		return err
	}
	next, err := k.files.prepare(asked.key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, next.abandon()) }()
	if next.old == nil || next.old.thumbprint != k.pair.thumbprint {
		return errReplaced
	}
	bundle, err := k.ask(ctx, asked.der)
	if err != nil {
		return err
	}
	// Which authorities count is the broker's business here: it has proved who it
	// is by those that we trust.
	got, err := asked.accept(bundle, func(*x509.Certificate) bool { return true })
	if err != nil {
		return err
	}
	old := k.pair.certificate.Leaf
	if len(old.URIs) != 1 || got.leaf.URIs[0].String() != old.URIs[0].String() {
		return unusable("certificate: it is for %s", got.leaf.URIs[0])
	}
	if !got.leaf.NotAfter.After(old.NotAfter) {
		return unusable("certificate: it ends at %s, no later than the old one", stamp(got.leaf.NotAfter))
	}
	return next.commit(got.certificate)
}

// ask makes the call at the broker that the stream is on, or at the first one
// that answers.
func (k *keeper) ask(ctx context.Context, der []byte) (*stokerv1.CertificateBundle, error) {
	brokers := slices.Clone(k.source.config.Brokers)
	if c := k.source.talks(); c != nil {
		brokers = slices.Insert(slices.DeleteFunc(brokers, func(b string) bool { return b == c.broker }), 0, c.broker)
	}
	var failed *Error
	for _, broker := range brokers {
		bundle, err := k.askOne(ctx, broker, der)
		if err == nil {
			return bundle, nil
		}
		failed = err
		if ctx.Err() != nil || err.Reason != "" {
			break
		}
	}
	return nil, failed
}

func (k *keeper) askOne(ctx context.Context, broker string, der []byte) (*stokerv1.CertificateBundle, *Error) {
	l, err := k.source.config.dialWith(k.pair, broker)
	if err != nil {
		return nil, asError(err)
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := stokerv1.NewEnrollmentServiceClient(l.conn).RenewCertificate(ctx, &stokerv1.RenewCertificateRequest{CertificateRequest: der})
	if err != nil {
		return nil, l.explain(ctx, err)
	}
	return answer.GetCertificate(), nil
}

// move is a connection with another certificate, logged in, on which the stream
// can go on.
type move struct {
	link    *link
	session *session
}

// advance moves the stream to the certificate in the files if it is on another.
// The login, which may take a while or fail, comes first, while the old stream
// goes on; the credentials that are held are resumed on the new one.
func (k *keeper) advance(ctx context.Context) {
	c := k.source.talks()
	if c == nil || k.trouble != "" || c.link.thumbprint == k.pair.thumbprint || time.Now().Before(k.again) {
		return
	}
	m, problem := k.prepareMove(ctx, c.broker)
	switch {
	case ctx.Err() != nil:
	case problem == nil:
		if !k.again.IsZero() {
			k.again = time.Time{}
			k.tell(nil, time.Time{})
		}
		k.pace.reset()
		if c.offer(ctx, m) {
			return
		}
		// The stream has ended: the next one is opened with the new certificate
		// in any case.
	default:
		k.again = time.Now().Add(k.pace.next(problem, 0))
		k.tell(annotated("the stream stays on the old certificate for now", problem), k.again)
	}
	if m.link != nil {
		m.link.close()
	}
}

func (k *keeper) prepareMove(ctx context.Context, broker string) (move, *Error) {
	l, err := k.source.config.dialWith(k.pair, broker)
	if err != nil {
		return move{}, asError(err)
	}
	if k.source.config.Delegation != nil {
		return move{link: l}, nil
	}
	made, problem := k.source.config.createSession(ctx, l)
	return move{l, made}, problem
}
