// Reads one case a line from standard input and writes the verdicts on its
// requests, one line a case. The first argument is the directory of the
// evaluator's package.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const root = createRequire(join(process.argv[2], 'package.json'))
const { runSimulation, runUnsafeSimulation } = await import(
  pathToFileURL(root.resolve('@cloud-copilot/iam-simulate'))
)

const account = '111122223333'
const everything = {
  name: 'everything',
  policy: { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] },
}

function simulation(request, identityPolicies, sessionPolicy) {
  return {
    request: {
      principal: `arn:aws:sts::${account}:federated-user/stoker`,
      action: request.action,
      resource: { resource: request.resource, accountId: account },
      contextVariables: request.context ?? {},
    },
    identityPolicies,
    sessionPolicy,
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  }
}

// The whole simulation, with the evaluator's checks of policies, actions,
// resources and condition keys.
async function thoroughly(request, identity, session) {
  const answer = await runSimulation(simulation(request, identity, session), {})
  if (answer.resultType === 'error') {
    throw new Error(`${JSON.stringify(request)}: ${JSON.stringify(answer.errors)}`)
  }
  if (answer.resultType === 'single' && answer.result.ignoredContextKeys?.length > 0) {
    throw new Error(`${JSON.stringify(request)}: ignored ${answer.result.ignoredContextKeys}`)
  }
  return answer.overallResult
}

// The evaluation alone, ten times faster. It takes no session policy, so that is
// evaluated by itself: a session has what both allow.
function quickly(request, identity, session) {
  const verdicts = [runUnsafeSimulation(simulation(request, identity), {})]
  if (session !== undefined) {
    verdicts.push(runUnsafeSimulation(simulation(request, [{ name: 'session', policy: session }]), {}))
  }
  return (
    ['ExplicitlyDenied', 'ImplicitlyDenied'].find((denied) => verdicts.includes(denied)) ?? verdicts[0]
  )
}

for await (const line of createInterface({ input: process.stdin })) {
  const given = JSON.parse(line)
  const identity = [everything, ...(given.identity ?? []).map((text, i) => ({ name: `p${i}`, policy: JSON.parse(text) }))]
  const session = given.session ? JSON.parse(given.session) : undefined
  const verdicts = []
  for (const request of given.requests) {
    verdicts.push(
      request.thorough ? await thoroughly(request, identity, session) : quickly(request, identity, session),
    )
  }
  process.stdout.write(JSON.stringify(verdicts) + '\n')
}
