// A go-spiffe client of a Workload API: an X509Source, a JWTSource, and a watch that goes on through rotations.
//
//	client SOCKET AUDIENCE ROTATIONS
//
// Prints one line of JSON for each thing seen, and ends after so many further X.509-SVIDs, or with an error after 60 seconds.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type watcher struct{ seen chan *workloadapi.X509Context }

func (w watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w.seen <- c }
func (w watcher) OnX509ContextWatchError(err error)              { say("watch-error", "error", err.Error()) }

func say(what string, pairs ...string) {
	line := map[string]string{"what": what}
	for i := 0; i+1 < len(pairs); i += 2 {
		line[pairs[i]] = pairs[i+1]
	}
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		say("failed", "error", err.Error())
		os.Exit(1)
	}
}

func run(socket, audience, rotations string) error {
	wanted, err := strconv.Atoi(rotations)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	addr := workloadapi.WithClientOptions(workloadapi.WithAddr("unix://" + socket))

	x509Source, err := workloadapi.NewX509Source(ctx, addr)
	if err != nil {
		return fmt.Errorf("X509Source: %w", err)
	}
	defer x509Source.Close()
	svid, err := x509Source.GetX509SVID()
	if err != nil {
		return err
	}
	bundle, err := x509Source.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return fmt.Errorf("x509svid.Verify: %w", err)
	}
	say("x509", "id", svid.ID.String(), "serial", svid.Certificates[0].SerialNumber.String())

	jwtSource, err := workloadapi.NewJWTSource(ctx, addr)
	if err != nil {
		return fmt.Errorf("JWTSource: %w", err)
	}
	defer jwtSource.Close()
	token, err := jwtSource.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return fmt.Errorf("FetchJWTSVID: %w", err)
	}
	var bundles jwtbundle.Source = jwtSource
	checked, err := jwtsvid.ParseAndValidate(token.Marshal(), bundles, []string{audience})
	if err != nil {
		return fmt.Errorf("ParseAndValidate: %w", err)
	}
	if _, err := workloadapi.ValidateJWTSVID(ctx, token.Marshal(), audience, workloadapi.WithAddr("unix://"+socket)); err != nil {
		return fmt.Errorf("ValidateJWTSVID: %w", err)
	}
	say("jwt", "id", checked.ID.String())

	w := watcher{make(chan *workloadapi.X509Context, 16)}
	go func() { _ = workloadapi.WatchX509Context(ctx, w, workloadapi.WithAddr("unix://"+socket)) }()
	last := ""
	for changes := -1; changes < wanted; {
		select {
		case c := <-w.seen:
			own := c.DefaultSVID()
			bundle, err := c.Bundles.GetX509BundleForTrustDomain(own.ID.TrustDomain())
			if err != nil {
				return err
			}
			if _, _, err := x509svid.Verify(own.Certificates, bundle); err != nil {
				return fmt.Errorf("x509svid.Verify after a rotation: %w", err)
			}
			if serial := own.Certificates[0].SerialNumber.String(); serial != last {
				last, changes = serial, changes+1
				say("watched", "serial", serial)
			}
		case <-ctx.Done():
			return fmt.Errorf("saw no further SVID in time")
		}
	}
	return nil
}
