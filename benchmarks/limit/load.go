package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func login() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	// The client's own limit of 5 a second is not what is measured.
	config.QPS = -1
	return config, nil
}

func client() (dynamic.Interface, error) {
	config, err := login()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(config)
}

// each runs do for 0 … n-1, inFlight at the same time, and ends at the first error.
func each(ctx context.Context, n, inFlight int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range inFlight {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, i); err != nil {
					return fmt.Errorf("%s: %w", name(i), err)
				}
			}
		})
	}
	return group.Wait()
}

// seed makes the namespace, the Secrets and the Connectors, in this order.
func seed(ctx context.Context, o options) error {
	c, err := client()
	if err != nil {
		return err
	}
	if err := seedSecrets(ctx, c, o); err != nil {
		return err
	}
	return each(ctx, o.objects, o.inFlight, func(ctx context.Context, i int) error {
		_, err := c.Resource(connectors).Namespace(o.namespace).Create(ctx, connector(i, o.url), metav1.CreateOptions{})
		return err
	})
}

func seedSecrets(ctx context.Context, c dynamic.Interface, o options) error {
	_, err := c.Resource(namespaces).Create(ctx, namespace(o.namespace), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return each(ctx, o.objects, o.inFlight, func(ctx context.Context, i int) error {
		_, err := c.Resource(secrets).Namespace(o.namespace).Create(ctx, secret(i), metav1.CreateOptions{})
		return err
	})
}

// reconcile does the calls that no operator can do without, and nothing else: GET the Secret, merge-PATCH the status.
func reconcile(ctx context.Context, o options) error {
	c, err := client()
	if err != nil {
		return err
	}
	inSecrets, inConnectors := c.Resource(secrets).Namespace(o.namespace), c.Resource(connectors).Namespace(o.namespace)
	// Connections and discovery are not what is measured.
	if _, err := inSecrets.Get(ctx, name(0), metav1.GetOptions{}); err != nil {
		return err
	}
	started := time.Now()
	err = each(ctx, o.objects, o.inFlight, func(ctx context.Context, i int) error {
		if _, err := inSecrets.Get(ctx, name(i), metav1.GetOptions{}); err != nil {
			return err
		}
		patch := statusPatch(i, time.Now())
		_, err := inConnectors.Patch(ctx, name(i), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
	if err != nil {
		return err
	}
	return say(map[string]float64{"seconds": time.Since(started).Seconds()})
}

// clearAll deletes what seed made, but for the namespace, whose controller would go on working for a while.
func clearAll(ctx context.Context, o options) error {
	c, err := client()
	if err != nil {
		return err
	}
	inSecrets, inConnectors := c.Resource(secrets).Namespace(o.namespace), c.Resource(connectors).Namespace(o.namespace)
	for _, resource := range []dynamic.ResourceInterface{inConnectors, inSecrets} {
		if err := resource.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return err
		}
	}
	return nil
}
