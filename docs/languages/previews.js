// Puts previews to sleep: Deployments with the label `tier: preview`, when nobody has used them for a quarter of an hour.

import { get } from 'dormouse:plugin/config@0.1.0';
import { list } from 'dormouse:plugin/kubernetes@0.1.0';
import { sleep, wake } from 'dormouse:plugin/lifecycle@0.1.0';

const MINUTE = 60_000;

function objects(apiVersion, kind, labelSelector, fields) {
  return list({ apiVersion, kind, labelSelector, fields }).map((text) => JSON.parse(text));
}

function selects(service, labels) {
  const selector = Object.entries(service.spec?.selector ?? {});
  return selector.length > 0 && selector.every(([key, value]) => labels[key] === value);
}

function resource(deployment, services, minutes) {
  const { namespace, name } = deployment.metadata;
  const object = { apiVersion: 'apps/v1', kind: 'Deployment', name };
  const labels = deployment.spec?.template?.metadata?.labels ?? {};
  const leading = services.filter((service) => service.metadata.namespace === namespace && selects(service, labels));
  return {
    id: { namespace, name },
    object,
    state: { tag: deployment.spec?.replicas === 0 ? 'asleep' : 'awake' },
    rules: [
      { source: { tag: 'observed-traffic' }, window: BigInt(minutes * MINUTE), threshold: '0', extra: [] },
    ],
    workloads: [object],
    services: leading.map((service) => service.metadata.name),
    extra: [],
  };
}

// What is thrown has the shape of `plugin-error`; of anything else the host only says that it is none.
function failed(error) {
  return { tag: 'transient', val: String(error?.payload?.val ?? error) };
}

export const scaler = {
  settings() {
    return { extra: [] };
  },

  resources() {
    const minutes = Number(get('minutes') ?? '15');
    if (!Number.isInteger(minutes) || minutes < 1) {
      throw { tag: 'invalid-configuration', val: `minutes: ${get('minutes')} is no number of minutes, such as 15` };
    }
    const deployments = objects('apps/v1', 'Deployment', 'tier=preview', [
      'spec.replicas',
      'spec.template.metadata.labels',
      'metadata.deletionTimestamp',
    ]);
    const services = objects('v1', 'Service', undefined, ['spec.selector']);
    return deployments
      .filter((deployment) => !deployment.metadata.deletionTimestamp)
      .map((deployment) => resource(deployment, services, minutes));
  },

  setScale(resources, replicas, reason) {
    return resources.map(({ id }) => {
      try {
        (replicas === 0 ? sleep : wake)(id, reason);
        return { tag: 'accepted' };
      } catch (error) {
        return { tag: 'failed', val: failed(error) };
      }
    });
  },

  service() {
    return { name: '', extra: [] };
  },
};
