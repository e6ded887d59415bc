-- A merchant's part of the log, in the order of positions: what an auditor of one merchant reads and exports.
CREATE INDEX events_of_merchant ON events (merchant_id, notification_id);
