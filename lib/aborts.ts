/**
 * Listening to AbortSignals. Runtimes look through all listeners of a signal whenever one is added
 * or removed, so ten thousand waits with one signal would take seconds to begin and to end. Here
 * each signal gets one listener, whoever listens.
 *
 * @module
 */

interface Listeners {
  readonly all: Set<{ readonly call: () => void }>;
  /** The runtime's. */
  readonly fire: () => void;
}

const known = new WeakMap<AbortSignal, Listeners>();

function listenersOf(signal: AbortSignal): Listeners {
  const old = known.get(signal);
  if (old !== undefined) return old;
  const all: Listeners["all"] = new Set();
  const fire = (): void => {
    // In the order in which they came; one that is removed meanwhile is not called.
    for (const listener of [...all]) if (all.delete(listener)) listener.call();
    forget(signal, listeners);
  };
  const listeners = { all, fire };
  known.set(signal, listeners);
  signal.addEventListener("abort", fire);
  return listeners;
}

/** A signal that nobody listens to is the runtime's again: it may be collected. */
function forget(signal: AbortSignal, listeners: Listeners): void {
  if (listeners.all.size > 0 || known.get(signal) !== listeners) return;
  known.delete(signal);
  signal.removeEventListener("abort", listeners.fire);
}

/** Calls `listener` when the signal is aborted, once. Returns what ends that. Must not throw. */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  const listeners = listenersOf(signal);
  const entry = { call: listener };
  listeners.all.add(entry);
  return () => {
    if (listeners.all.delete(entry)) forget(signal, listeners);
  };
}
