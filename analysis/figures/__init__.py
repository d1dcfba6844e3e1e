"""Figures of results, each drawn once and shown twice: as panels of the page (SVG) and as one figure at paper size (PDF, PNG).

Only the modules in here import matplotlib, and without a display. `drawing` says what a figure is; `style` holds colours and files.
"""
