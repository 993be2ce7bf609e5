"use strict";
// The training: started and stopped here, and followed, whoever started it.

const BUSY_POLL_S = 1;
const IDLE_POLL_S = 5;
const MOST_LINES = 1000;

class TrainingView {
  constructor({ ended, announce }) {
    this.ended = ended;
    this.announce = announce;
    this.number = 0;
    this.numLines = 0;
    this.wasRunning = false;
    find("train").addEventListener("click", () => this.act("start"));
    find("stop").addEventListener("click", () => this.act("stop"));
    this.wake = () => {};
  }

  async act(action) {
    find("train").disabled = find("stop").disabled = true;
    const { status, body } = await call("/api/training", { action });
    find("train").disabled = find("stop").disabled = false;
    if (status !== 200) this.say(body.error ?? CUT_OFF);
    this.wake();
  }

  say(text) {
    find("training-state").textContent = text;
    this.announce(text);
  }

  async watch() {
    for (;;) {
      const { status, body } = await call(`/api/training?first=${this.numLines}`);
      if (status === 200) this.show(body);
      const waitS = this.wasRunning ? BUSY_POLL_S : IDLE_POLL_S;
      await Promise.race([pause(waitS), new Promise((resolve) => { this.wake = resolve; })]);
    }
  }

  show({ is_running: isRunning, result, lines, num_lines: numLines, number, has_report: hasReport }) {
    find("report").hidden = !hasReport || isRunning;
    find("train").hidden = isRunning;
    find("stop").hidden = !isRunning;
    if (number !== this.number || numLines < this.numLines) {
      this.number = number;
      find("log").textContent = "";
      if (this.numLines) { // what came is of another training: from its first line on
        this.numLines = 0;
        this.wasRunning = isRunning;
        this.wake();
        return;
      }
    }
    this.add(lines);
    this.numLines = numLines;
    if (isRunning) {
      if (!this.wasRunning) this.say("Training…");
      const last = lines.filter((line) => /^\d\d:\d\d:\d\d /.test(line)).at(-1); // the pipeline's own, not its libraries'
      if (last) find("training-state").textContent = last;
    } else if (result && (this.wasRunning || find("training-state").textContent !== result)) {
      const isNew = this.wasRunning;
      find("training-state").textContent = result;
      if (isNew) this.announce(result);
      this.ended();
    }
    this.wasRunning = isRunning;
  }

  add(lines) {
    const log = find("log");
    if (!lines.length) return;
    log.hidden = false;
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    const all = [...log.textContent.split("\n").filter(Boolean), ...lines];
    log.textContent = all.slice(-MOST_LINES).join("\n");
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }
}
