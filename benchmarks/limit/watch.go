package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// event is the little that is read of a watch event: to decode whole objects would cost the operator's cores.
type event struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Status struct {
			Conditions []struct {
				Type   string `json:"type"`
				Status string `json:"status"`
			} `json:"conditions"`
		} `json:"status"`
	} `json:"object"`
}

func (e event) ready() bool {
	for _, condition := range e.Object.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True"
		}
	}
	return false
}

// stream is a watch of a namespace's Connectors: first those that are there, then what changes. It asks for plain
// JSON of whole objects, as the operator does: the API server encodes an event once for all who ask for the same.
type stream struct {
	body    io.ReadCloser
	decoder *json.Decoder
}

func watchConnectors(ctx context.Context, in string) (*stream, error) {
	config, err := login()
	if err != nil {
		return nil, err
	}
	http_, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("%s/apis/%s/%s/namespaces/%s/%s?watch=true",
		config.Host, connectors.Group, connectors.Version, in, connectors.Resource)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http_.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("watch of Connectors: %s", response.Status)
	}
	return &stream{response.Body, json.NewDecoder(response.Body)}, nil
}

func (s *stream) next() (event, error) {
	var e event
	if err := s.decoder.Decode(&e); err != nil {
		return e, fmt.Errorf("the watch of Connectors ended: %w", err)
	}
	if e.Type == "ERROR" || e.Type == "DELETED" {
		return e, fmt.Errorf("the watch of Connectors shows %s", e.Type)
	}
	return e, nil
}

// watchReady says when it sees every object, and later when the first and the last of them became ready, in
// nanoseconds since the epoch.
func watchReady(ctx context.Context, o options) error {
	s, err := watchConnectors(ctx, o.namespace)
	if err != nil {
		return err
	}
	defer s.body.Close()
	seen, ready := map[string]bool{}, map[string]bool{}
	var first int64
	for {
		e, err := s.next()
		if err != nil {
			return fmt.Errorf("%d of %d Connectors are ready: %w", len(ready), o.objects, err)
		}
		if !seen[e.Object.Metadata.Name] {
			seen[e.Object.Metadata.Name] = true
			if len(seen) == o.objects {
				if err := say(map[string]int{"seen": len(seen)}); err != nil {
					return err
				}
			}
		}
		if !e.ready() {
			continue
		}
		ready[e.Object.Metadata.Name] = true
		now := time.Now().UnixNano()
		if first == 0 {
			first = now
		}
		if len(ready) == o.objects {
			return say(map[string]int64{"first": first, "last": now})
		}
	}
}

// fresh makes Connectors one by one, and says for each how many milliseconds after the API server's answer its status
// was on a watch.
func fresh(ctx context.Context, o options) error {
	c, err := client()
	if err != nil {
		return err
	}
	if err := seedSecrets(ctx, c, o); err != nil {
		return err
	}
	s, err := watchConnectors(ctx, o.namespace)
	if err != nil {
		return err
	}
	defer s.body.Close()
	ready, failed := make(chan event, o.objects), make(chan error, 1)
	go func() {
		for {
			e, err := s.next()
			if err != nil {
				failed <- err
				return
			}
			if e.ready() {
				ready <- e
			}
		}
	}()
	// The Secrets have to be old news, and the operator at rest.
	time.Sleep(2 * time.Second)
	var took []float64
	for i := range o.objects {
		_, err := c.Resource(connectors).Namespace(o.namespace).Create(ctx, connector(i, o.url), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		answered := time.Now()
		select {
		case e := <-ready:
			if e.Object.Metadata.Name != name(i) {
				return errors.New(e.Object.Metadata.Name + " was written twice")
			}
			took = append(took, float64(time.Since(answered).Microseconds())/1000)
		case err := <-failed:
			return fmt.Errorf("%s: %w", name(i), err)
		}
	}
	return say(map[string][]float64{"milliseconds": took})
}
