// Prints what imapflow makes of a mailbox, as JSON: a line before and a line after changes, for which it waits at its input.
const fs = require("fs");
const { createRequire } = require("module");
const { ImapFlow } = createRequire(process.env.IMAPFLOW + "/")("imapflow");

const [port, user, pass, ca, folder] = process.argv.slice(2);
const options = {
  host: "localhost", port: Number(port), secure: true, auth: { user, pass }, tls: { ca: fs.readFileSync(ca) }, qresync: true, logger: false,
};
const say = value => console.log(JSON.stringify(value, (_key, each) => (typeof each === "bigint" ? String(each) : each instanceof Set ? [...each].sort() : each)));

async function main() {
  let client = new ImapFlow(options);
  await client.connect();
  const enabled = client.enabled;
  const listed = await client.list({ statusQuery: { messages: true } });
  let box = await client.mailboxOpen(folder);
  const ids = [];
  for await (const message of client.fetch("1:*", { uid: true, flags: true, envelope: true })) ids.push(message.emailId);
  await client.messageFlagsAdd({ uid: 1 }, ["\\Flagged"], { unchangedSince: box.highestModseq });
  say({ enabled, count: listed.find(each => each.path === folder).status.messages, mailboxId: box.mailboxId, ids });
  const { highestModseq, uidValidity } = box;
  await client.logout();
  await new Promise(resolve => process.stdin.once("data", resolve));

  client = new ImapFlow(options);
  await client.connect();
  const vanished = [], changed = [];
  client.on("expunge", event => vanished.push(event.uid));
  client.on("flags", event => changed.push([event.uid, event.flags]));
  await client.mailboxOpen(folder, { changedSince: highestModseq, uidValidity });
  say({ vanished, changed });
  await client.logout();
  process.exit(0);
}
main().catch(error => { console.error(error); process.exit(1); });
