// A SPIRE agent's workload attestor for the components of Portcullis hosts.
//
// It resolves references of the type portcullis.broker.v1.ComponentReference, which a host sends over the SPIFFE Broker API, into
// selectors. What it trusts: the agent's word about which broker asks (mutual TLS with X.509-SVIDs), and, of that broker, only
// those that the operator lists in `hosts`: a host admits a component after it verified its signed claims, and vouches for
// the result. What it refuses: every other broker, a reference to another host than the one that asks, malformed fields, every
// other type of reference. Processes are not its business: Attest answers with no selectors.
//
// Configuration of the agent (plugins):
//
//	WorkloadAttestor "portcullis" {
//	    plugin_cmd = "/opt/spire/bin/portcullis-attestor"
//	    plugin_checksum = "..."
//	    plugin_data { hosts = ["spiffe://example.org/portcullis/host"] }
//	}
//
// Selectors: portcullis:component:NAME, portcullis:digest:sha256:HEX, portcullis:signer:KEY, portcullis:host:SPIFFE-ID.
package main

import (
	"context"
	"regexp"
	"sync"

	"github.com/hashicorp/hcl"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/spire-plugin-sdk/pluginmain"
	workloadattestorv1 "github.com/spiffe/spire-plugin-sdk/proto/spire/plugin/agent/workloadattestor/v1"
	configv1 "github.com/spiffe/spire-plugin-sdk/proto/spire/service/common/config/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	typeURL      = "type.googleapis.com/portcullis.broker.v1.ComponentReference"
	callerHeader = "spire-agent-broker-caller-id"
	maxReference = 8 << 10
)

var (
	instanceForm  = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)
	componentForm = regexp.MustCompile(`^[a-z0-9._/-]{1,255}:[a-z0-9._/-]{1,255}$`)
	digestForm    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	signerForm    = regexp.MustCompile(`^[a-zA-Z0-9._:@/+=-]{1,512}$`)
)

type config struct {
	Hosts []string `hcl:"hosts"`
}

type plugin struct {
	workloadattestorv1.UnimplementedWorkloadAttestorServer
	configv1.UnimplementedConfigServer

	mutex sync.RWMutex
	hosts map[string]bool
}

func (p *plugin) Configure(_ context.Context, req *configv1.ConfigureRequest) (*configv1.ConfigureResponse, error) {
	var read config
	if err := hcl.Decode(&read, req.HclConfiguration); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "configuration: %v", err)
	}
	if len(read.Hosts) == 0 {
		return nil, status.Error(codes.InvalidArgument, "configuration: hosts must name at least one SPIFFE ID")
	}
	hosts := make(map[string]bool, len(read.Hosts))
	for _, host := range read.Hosts {
		id, err := spiffeid.FromString(host)
		if err != nil || id.Path() == "" {
			return nil, status.Errorf(codes.InvalidArgument, "configuration: %q is not the SPIFFE ID of a host", host)
		}
		hosts[id.String()] = true
	}
	p.mutex.Lock()
	p.hosts = hosts
	p.mutex.Unlock()
	return &configv1.ConfigureResponse{}, nil
}

func (p *plugin) Attest(context.Context, *workloadattestorv1.AttestRequest) (*workloadattestorv1.AttestResponse, error) {
	return &workloadattestorv1.AttestResponse{}, nil
}

func (p *plugin) AttestReference(ctx context.Context, req *workloadattestorv1.AttestReferenceRequest) (*workloadattestorv1.AttestReferenceResponse, error) {
	if req.GetReference().GetTypeUrl() != typeURL {
		return nil, status.Error(codes.InvalidArgument, "not a reference to a component")
	}
	host, err := p.caller(ctx)
	if err != nil {
		return nil, err
	}
	reference, err := decode(req.GetReference().GetValue())
	if err != nil {
		return nil, err
	}
	if reference.host != host {
		return nil, status.Error(codes.PermissionDenied, "a host may refer to its own components only")
	}
	return &workloadattestorv1.AttestReferenceResponse{SelectorValues: reference.selectors()}, nil
}

// caller is the broker that asks, as the agent authenticated it, if it is one of the listed hosts.
func (p *plugin) caller(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, callerHeader)
	if len(values) != 1 {
		return "", status.Error(codes.PermissionDenied, "the agent names no broker")
	}
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	if !p.hosts[values[0]] {
		return "", status.Error(codes.PermissionDenied, "this broker is not a listed host")
	}
	return values[0], nil
}

type reference struct {
	host, instance, digest, component, signer string
}

// decode reads portcullis.broker.v1.ComponentReference. A field that is there twice or that is not known is refused.
func decode(bytes []byte) (*reference, error) {
	invalid := status.Error(codes.InvalidArgument, "the reference is malformed")
	if len(bytes) > maxReference {
		return nil, invalid
	}
	var read reference
	fields := map[protowire.Number]*string{
		1: &read.host, 2: &read.instance, 3: &read.digest, 4: &read.component, 5: &read.signer,
	}
	for len(bytes) > 0 {
		number, kind, n := protowire.ConsumeTag(bytes)
		field := fields[number]
		if n < 0 || kind != protowire.BytesType || field == nil || *field != "" {
			return nil, invalid
		}
		bytes = bytes[n:]
		value, n := protowire.ConsumeBytes(bytes)
		if n < 0 {
			return nil, invalid
		}
		*field, bytes = string(value), bytes[n:]
	}
	fits := func(text string, form *regexp.Regexp) bool { return text == "" || form.MatchString(text) }
	if !instanceForm.MatchString(read.instance) || !fits(read.digest, digestForm) ||
		!fits(read.component, componentForm) || !fits(read.signer, signerForm) {
		return nil, invalid
	}
	return &read, nil
}

func (r *reference) selectors() []string {
	selectors := []string{"host:" + r.host}
	for _, fact := range []struct{ name, value string }{
		{"component", r.component}, {"digest", r.digest}, {"signer", r.signer},
	} {
		if fact.value != "" {
			selectors = append(selectors, fact.name+":"+fact.value)
		}
	}
	return selectors
}

func main() {
	p := new(plugin)
	pluginmain.Serve(
		workloadattestorv1.WorkloadAttestorPluginServer(p),
		configv1.ConfigServiceServer(p),
	)
}
