// Runs the Provider framework's own code, as it is in an asset, with functions that follow a script.
// stdin: {"folder": …, "cases": [{"event": …, "onEvent": [answers], "isComplete": [answers] or null, "polls": n}]}
// stdout: for each case what was sent to CloudFormation, and which function was called how often.
// An answer is what the function returns, or {"errorMessage": …} for one that it raises; the last one stays.
'use strict';
const Module = require('node:module');
const path = require('node:path');

const load = Module._load;
Module._load = (name, ...rest) => (name.startsWith('@aws-sdk/') ? {} : load(name, ...rest));
const say = console.log;
console.log = () => {};

async function run(folder, { event, onEvent, isComplete, polls }) {
  for (const name of Object.keys(require.cache)) delete require.cache[name];
  const outbound = require(path.join(folder, 'outbound.js'));
  const scripts = { onEvent: [...onEvent], isComplete: [...(isComplete ?? [])] };
  const calls = { onEvent: 0, isComplete: 0 };
  const responses = [];
  let waiting = null;
  outbound.httpRequest = async (_, body) => { responses.push(JSON.parse(body)); };
  outbound.startExecution = async ({ input }) => { waiting = input; };
  outbound.invokeFunction = async ({ FunctionName }) => {
    const name = FunctionName.split(':').pop();
    calls[name] += 1;
    const script = scripts[name];
    const answer = script.length > 1 ? script.shift() : script[0];
    return { Payload: JSON.stringify(answer), FunctionError: answer.errorMessage ? 'Unhandled' : undefined };
  };
  process.env.USER_ON_EVENT_FUNCTION_ARN = 'arn:aws:lambda:us-east-1:000000000000:function:onEvent';
  delete process.env.USER_IS_COMPLETE_FUNCTION_ARN;
  if (isComplete) {
    process.env.USER_IS_COMPLETE_FUNCTION_ARN = 'arn:aws:lambda:us-east-1:000000000000:function:isComplete';
    process.env.WAITER_STATE_MACHINE_ARN = 'arn:aws:states:us-east-1:000000000000:stateMachine:waiter';
  }
  const framework = require(path.join(folder, 'framework.js'));
  await framework.onEvent(event);
  // What the waiter's state machine does: it asks again after an error named Retry, and only after that.
  let error = null;
  for (let poll = 0; waiting !== null && poll < polls; poll += 1) {
    error = null;
    try {
      await framework.isComplete(JSON.parse(waiting));
      break;
    } catch (thrown) {
      error = thrown;
    }
  }
  if (error) await framework.onTimeout({ Cause: JSON.stringify({ errorMessage: error.message }) });
  return { responses, calls };
}

let text = '';
process.stdin.on('data', (chunk) => { text += chunk; });
process.stdin.on('end', async () => {
  const { folder, cases } = JSON.parse(text);
  const results = [];
  for (const one of cases) results.push(await run(folder, one));
  say(JSON.stringify(results));
});
