// browse.js opens a report in a browser that has no network, and prints as JSON
// what it saw: node browse.js CHROMIUM PAGE [PICTURES]. The page and pictures of it go
// to the directory PICTURES where one is given.
"use strict";
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const { chromium } = require("playwright-core");

async function main([executablePath, file, pictures]) {
	const url = pathToFileURL(path.resolve(file)).href;
	const saw = { requests: [], refused: [], errors: [] };
	const browser = await chromium.launch({ executablePath });
	const open = async options => {
		const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light", ...options });
		await context.setOffline(true);
		await context.route("**/*", route => {
			if (route.request().url().split("#")[0] === url) return route.continue();
			saw.refused.push(route.request().url());
			return route.abort();
		});
		const page = await context.newPage();
		page.on("request", r => saw.requests.push(r.url().split("#")[0]));
		page.on("requestfailed", r => saw.refused.push(r.url()));
		page.on("console", m => { if (m.type() === "error" || m.type() === "warning") saw.errors.push(m.text()); });
		page.on("pageerror", e => saw.errors.push(String(e)));
		await page.goto(url);
		return page;
	};
	const picture = async (page, name) => {
		if (!pictures) return;
		await page.waitForTimeout(200);
		await page.screenshot({ path: path.join(pictures, name + ".png"), fullPage: true });
	};
	const drawn = page => page.waitForFunction(() => {
		const places = [...document.querySelectorAll(".plot")].filter(p => p.checkVisibility({ contentVisibilityAuto: true }));
		return places.every(p => p.querySelector("canvas"));
	}, null, { timeout: 10000 }).catch(() => saw.errors.push("a chart is missing"));

	const page = await open({});
	await drawn(page);
	await picture(page, "1280-light");
	await page.evaluate(() => document.querySelectorAll("main details").forEach(d => { d.open = true; }));
	await drawn(page);
	saw.scrolling = await page.evaluate(() => [...document.querySelectorAll(".scroll")].filter(s => s.scrollWidth > s.clientWidth)
		.map(s => `${s.getAttribute("aria-labelledby") || s.getAttribute("aria-label")}: ${s.scrollWidth} in ${s.clientWidth}`));
	saw.charts = await page.locator(".plot canvas").count();
	saw.places = await page.locator(".plot").count();

	const plot = page.locator('.plot[data-kind="percentiles"]').first();
	const readout = () => plot.locator(".u-legend").innerText();
	const over = plot.locator(".u-over");
	await over.scrollIntoViewIfNeeded();
	saw.readoutBefore = await readout();
	const box = await over.boundingBox();
	await page.mouse.move(box.x + box.width * .3, box.y + box.height / 2, { steps: 4 });
	await page.waitForTimeout(100);
	saw.readoutAfter = await readout();
	if (pictures) await plot.screenshot({ path: path.join(pictures, "hover.png") });
	await page.mouse.move(box.x + box.width / 2, box.y - 40, { steps: 4 });
	await page.waitForTimeout(100);
	saw.readoutOutside = await readout();

	saw.recovery = await page.locator('.plot[data-kind="recovery"] .u-legend').first().innerText();

	const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
	saw.backgroundBefore = await background();
	await page.locator("#theme").click();
	saw.backgroundAfter = await background();
	if (pictures) {
		fs.copyFileSync(file, path.join(pictures, "report.html"));
		await picture(page, "1280-dark-all");
		await page.locator("#theme").click();
		await page.pdf({ path: path.join(pictures, "print.pdf"), format: "A4", margin: { top: "15mm", bottom: "15mm", left: "15mm", right: "15mm" } });
	}
	saw.tables = await page.locator("table:not(.u-legend)").count();

	const phone = await open({ viewport: { width: 390, height: 844 } });
	await phone.evaluate(() => document.querySelectorAll("details").forEach(d => { d.open = true; }));
	await drawn(phone);
	saw.narrow = await phone.evaluate(() => ({
		scrollWidth: document.documentElement.scrollWidth, clientWidth: document.documentElement.clientWidth,
	}));
	if (pictures) {
		await picture(await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 }), "390-light");
		await picture(await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 2 }), "390-dark");
		await picture(await open({ colorScheme: "dark" }), "1280-dark");
	}
	const plain = await open({ javaScriptEnabled: false });
	saw.plainTables = await plain.locator("table").count();
	await browser.close();
	console.log(JSON.stringify(saw));
}

main(process.argv.slice(2)).catch(e => {
	console.error(e);
	process.exit(1);
});
