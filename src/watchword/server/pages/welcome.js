"use strict";

const { prefix, csrfCookie } = document.body.dataset;
const said = document.getElementById("said");

function csrfToken() {
  const lead = `${csrfCookie}=`;
  const found = document.cookie.split("; ").find((part) => part.startsWith(lead));
  return found ? found.slice(lead.length) : "";
}

async function call(path, body) {
  const answer = await fetch(prefix + path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken() },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer.status;
  const problem = await answer.json().catch(() => ({}));
  const reasons = (problem.errors || []).map((error) => `${error.field} ${error.detail}`);
  throw new Error(reasons.join("\n") || problem.detail || `The server answered ${answer.status}.`);
}

const signIn = (fields) => call("/login", { ...fields, transport: "cookie" });

const steps = {
  "sign-in": signIn,
  "sign-up": async (fields) => {
    if ((await call("/register", fields)) === 202) {
      throw new Error("Taken in. The address gets a mail: verify it first, then sign in.");
    }
    await signIn(fields);
  },
  "sign-out": () => call("/logout", {}),
};

for (const [id, step] of Object.entries(steps)) {
  const form = document.getElementById(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    said.textContent = "";
    try {
      await step(Object.fromEntries(new FormData(form)));
      location.reload();
    } catch (error) {
      said.textContent = error.message;
      button.disabled = false;
      button.focus();
    }
  });
}
