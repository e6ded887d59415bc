-- Where read models live. Their tables are told from the log, so each model makes its own, and makes them anew when
-- it changes: those that are read stand in `projections`, those that are being built in `rebuilding`.
CREATE SCHEMA projections;
CREATE SCHEMA rebuilding;

-- Up to which position of the log the tables of a model tell it; changed in one transaction with them. `identity` says
-- of which shape they are, `replaced` of which shapes they were before, `generation` how often they were replaced.
CREATE TABLE projections.checkpoints (
    model      text   COLLATE "C" PRIMARY KEY,
    identity   text   NOT NULL,
    position   bigint NOT NULL,
    generation bigint NOT NULL,
    tables     text[] NOT NULL,
    replaced   text[] NOT NULL DEFAULT '{}'
);
CREATE TABLE rebuilding.checkpoints (LIKE projections.checkpoints INCLUDING ALL);
