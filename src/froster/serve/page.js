// A click in a lane, or an arrow key, goes to that second: in the player, and by 'pick' on the server.
const player = () => document.querySelector('#froster-video video');
const move = (seconds) => {
  for (const lanes of element.querySelectorAll('.f-lanes')) {
    const start = Number(lanes.dataset.start), end = Number(lanes.dataset.end);
    lanes.style.setProperty('--at', Math.min(1, Math.max(0, (seconds - start) / Math.max(end - start, 1e-9))));
  }
};
const pick = (seconds) => {
  move(seconds);
  if (player()) { player().pause(); player().currentTime = seconds; }
  trigger('pick', { seconds: seconds });
};
element.addEventListener('click', (event) => {
  const track = event.target.closest('.f-track');
  if (!track) return;
  const lanes = track.closest('.f-lanes'), box = track.getBoundingClientRect();
  const start = Number(lanes.dataset.start), end = Number(lanes.dataset.end);
  const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  pick(start + share * (end - start));
});
element.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const lanes = event.target.closest('.f-lanes');
  if (!step || !lanes) return;
  event.preventDefault();
  const start = Number(lanes.dataset.start), end = Number(lanes.dataset.end);
  const at = start + Number(lanes.style.getPropertyValue('--at')) * (end - start);
  pick(Math.min(end, Math.max(start, at + step * Number(lanes.dataset.stride))));
});
// The line follows the player. Its events do not bubble, but they can be captured.
document.addEventListener('timeupdate', (event) => {
  if (event.target === player() && !event.target.paused) move(event.target.currentTime);
}, true);
