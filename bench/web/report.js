// The charts and the buttons of the page; without this file its tables say the same.
(() => {
	"use strict";
	const root = document.documentElement;
	const data = JSON.parse(document.getElementById("data").textContent);
	const dark = matchMedia("(prefers-color-scheme: dark)");
	// Beside its colour each candidate has a dash of its own.
	const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [12, 4], [3, 6], [8, 3, 3, 3], [1, 4]];

	// colour is what CSS makes of a variable in the theme that is shown: a canvas
	// knows no variables.
	function colour(name) {
		const probe = document.createElement("i");
		probe.style.color = "var(" + name + ")";
		document.body.append(probe);
		const value = getComputedStyle(probe).color;
		probe.remove();
		return value;
	}

	const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
	const whole = v => v == null ? "–" : grouped.format(v).replaceAll(",", "\u202f");
	const fine = v => v == null ? "–" : v < 10 ? v.toPrecision(2) : whole(v);
	const short = v => v >= 1e6 ? +(v / 1e6).toPrecision(3) + "M" : v >= 1e3 ? +(v / 1e3).toPrecision(3) + "k" : String(+v.toPrecision(3));
	const percent = share => +(100 * share).toPrecision(7) + "";

	// ladder is 1, 2, 5, 10, 20, ... from min to max.
	function ladder(min, max) {
		const steps = [];
		for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); e++)
			for (const m of [1, 2, 5]) {
				const v = +(m * 10 ** e).toPrecision(1);
				if (v >= min * .999 && v <= max * 1.001) steps.push(v);
			}
		return steps;
	}
	// between is the range of a logarithmic scale that begins and ends on the ladder.
	function between(u, min, max) {
		if (!(min > 0)) return [1, 10];
		const below = ladder(min / 10, min), above = ladder(max, max * 10);
		const lo = below[below.length - 1], hi = above[0];
		return lo < hi ? [lo, hi] : [lo, above[1]];
	}
	const positive = list => list.map(v => v > 0 ? v : null);

	function axis(look, more) {
		return {
			stroke: look.muted, font: look.font, labelFont: look.font, labelSize: 18, labelGap: 0,
			grid: { stroke: look.line, width: 1 }, ticks: { stroke: look.line, width: 1, size: 4 }, ...more,
		};
	}
	function line(look, candidate, more) {
		const stroke = look.hues[candidate % look.hues.length];
		return {
			label: data.candidates[candidate], stroke, width: 2, dash: dashes[candidate % dashes.length],
			points: { show: true, size: 5, fill: stroke, dash: [] }, spanGaps: true, value: (u, v) => fine(v), ...more,
		};
	}
	function common(look, width) {
		return {
			width, height: width < 480 ? 260 : 320, padding: [10, 26, 0, 0],
			legend: { live: true, markers: { width: 0, fill: (u, i) => u.series[i].stroke(u, i) } }, cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
		};
	}

	const kinds = {
		// The percentiles lie on 1/(1-share): each nine has the same width.
		percentiles(place, look, width) {
			const d = data.percentiles[place];
			const x = d.shares.map(s => 1 / (1 - s));
			const nines = [[1, "0"], [2, "50"], [10, "90"], [100, "99"], [1e3, "99.9"], [1e4, "99.99"], [1e5, "99.999"]]
				.filter(([v]) => v <= x[x.length - 1] * 1.01);
			const rest = Math.max(0, d.shares.indexOf(.99));
			return {
				rest,
				data: [x, ...d.us.map(positive)],
				options: {
					...common(look, width),
					scales: {
						x: { time: false, distr: 3, range: (u, min, max) => [min, Math.max(max, min * 10)] },
						y: { distr: 3, range: between },
					},
					axes: [
						axis(look, { label: "percentile", size: 28, splits: () => nines.map(n => n[0]), filter: (u, s) => s, values: () => nines.map(n => n[1]) }),
						axis(look, { size: 46, splits: (u, i, min, max) => ladder(min, max), filter: (u, s) => s, values: (u, s) => s.map(short) }),
					],
					series: [
						{ label: "percentile", value: (u, v, s, i) => i == null ? "–" : percent(d.shares[i]) + " %" },
						...d.candidates.map(c => line(look, c)),
					],
				},
			};
		},
		rates(place, look, width) {
			const d = data.curves[place];
			return curve(d, look, width, d.rates, {
				y: { range: (u, min, max) => [0, max * 1.05] },
			}, { values: (u, s) => s.map(short) }, [d.targets, { label: "offered", stroke: look.muted, width: 1, dash: [3, 3], points: { show: false }, value: (u, v) => fine(v), class: "knee" }]);
		},
		p99(place, look, width) {
			const d = data.curves[place];
			return curve(d, look, width, d.p99.map(positive), {
				y: { distr: 3, range: between },
			}, { splits: (u, i, min, max) => ladder(min, max), filter: (u, s) => s, values: (u, s) => s.map(short) });
		},
	};

	// recovery is the p99 over the time since the drop, and what it was before.
	kinds.recovery = (place, look, width) => {
		const d = data.recoveries[place];
		const steady = d.steady.map(v => d.ms.map(() => v > 0 ? v : null));
		const plain = { points: { show: false } };
		return {
			rest: Math.max(0, d.ms.indexOf(0)),
			data: [d.ms.map(v => v / 1000), ...d.us.map(positive), ...steady],
			options: {
				...common(look, width),
				scales: { x: { time: false }, y: { distr: 3, range: between } },
				axes: [
					axis(look, { label: "seconds since the drop", size: 28, values: (u, s) => s.map(v => +v.toFixed(3)), space: 60 }),
					axis(look, { size: 52, splits: (u, i, min, max) => ladder(min, max), filter: (u, s) => s, values: (u, s) => s.map(short) }),
				],
				series: [
					{ label: "seconds", value: (u, v) => v == null ? "–" : v.toFixed(2) },
					...d.candidates.map(c => line(look, c, plain)),
					...d.candidates.map(c => line(look, c, { ...plain, class: "knee", width: 1, dash: [2, 4] })),
				],
			},
		};
	};

	// curve has a line per candidate over the offered rates, and a ring at its knee.
	function curve(d, look, width, values, scales, y, ideal) {
		const one = d.targets.length === 1;
		const rings = d.knees.map((knee, i) => d.targets.map((t, k) => t === knee ? values[i][k] : null));
		return {
			rest: 0,
			data: [d.targets, ...(ideal ? [ideal[0]] : []), ...values, ...rings],
			options: {
				...common(look, width), height: width < 480 ? 220 : 260,
				scales: { x: { time: false, range: (u, min, max) => one ? [0, 2 * max] : [0, max * 1.03] }, ...scales },
				axes: [
					axis(look, { label: "offered per second", size: 28, values: (u, s) => s.map(short), space: 60 }),
					axis(look, { size: 52, ...y }),
				],
				series: [
					{ label: "offered", value: (u, v) => v == null ? "–" : whole(v) },
					...(ideal ? [ideal[1]] : []),
					...d.candidates.map(c => line(look, c)),
					...d.candidates.map(c => line(look, c, { class: "knee", width: 0, paths: () => null, points: { show: true, size: 15, width: 2, fill: "transparent", dash: [] } })),
				],
			},
		};
	}

	let look;
	function readLook() {
		look = {
			muted: colour("--muted"), line: colour("--line"), hues: dashes.map((_, i) => colour("--c" + i)),
			font: "12px " + getComputedStyle(root).fontFamily,
		};
	}
	const charts = new Map();
	function draw(place, width) {
		const c = kinds[place.dataset.kind](+place.dataset.index, look, width);
		if (c.data[0].length === 0) return;
		const chart = new uPlot(c.options, c.data, place);
		// Where nothing is pointed at, the readout stays at one place.
		const rest = () => queueMicrotask(() => chart.setLegend({ idx: c.rest }));
		chart.over.addEventListener("mouseleave", rest);
		rest();
		charts.set(place, chart);
	}
	function redraw(widthOf = place => place.clientWidth) {
		readLook();
		for (const [place, chart] of charts) {
			chart.destroy();
			draw(place, widthOf(place));
		}
	}
	readLook();
	let printing = false;
	// A place gets its chart when it has a width: in a closed part it has none.
	const sizes = new ResizeObserver(entries => {
		for (const { target: place } of entries) {
			const width = place.clientWidth, chart = charts.get(place);
			if (width === 0 || printing) continue;
			if (!chart) draw(place, width);
			else if (chart.width !== width) chart.setSize({ width, height: chart.height });
		}
	});
	for (const place of document.querySelectorAll(".plot")) sizes.observe(place);

	const button = document.getElementById("theme");
	const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
	function show() {
		button.textContent = isDark() ? "Light" : "Dark";
		button.setAttribute("aria-label", "Change to the " + (isDark() ? "light" : "dark") + " theme");
		redraw();
	}
	button.hidden = false;
	button.addEventListener("click", () => {
		root.dataset.theme = isDark() ? "light" : "dark";
		show();
	});
	dark.addEventListener("change", show);
	show();

	const copy = document.getElementById("copy");
	if (copy && navigator.clipboard) {
		copy.hidden = false;
		copy.addEventListener("click", async () => {
			try {
				await navigator.clipboard.writeText(document.getElementById("command").textContent);
				copy.textContent = "Copied";
			} catch {
				copy.textContent = "Not allowed";
			}
			setTimeout(() => { copy.textContent = "Copy"; }, 1500);
		});
	}

	// A link to a closed part opens it.
	function reveal() {
		const part = location.hash && document.getElementById(location.hash.slice(1));
		if (part && part.tagName === "DETAILS") part.open = true;
	}
	addEventListener("hashchange", reveal);
	reveal();

	// On paper all parts are open, and the charts are light and as wide as a sheet.
	let before;
	addEventListener("beforeprint", () => {
		const closed = [...document.querySelectorAll("main details:not([open])")];
		before = { theme: root.dataset.theme, closed };
		printing = true;
		root.dataset.theme = "light";
		for (const part of closed) part.open = true;
		for (const place of document.querySelectorAll(".plot")) if (!charts.has(place)) draw(place, 640);
		redraw(place => place.parentElement.tagName === "FIGURE" ? 320 : 640);
	});
	addEventListener("afterprint", () => {
		if (!before) return;
		if (before.theme) root.dataset.theme = before.theme;
		else delete root.dataset.theme;
		for (const part of before.closed) part.open = false;
		printing = false;
		redraw();
	});
})();
