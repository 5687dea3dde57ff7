-- One row for each crystal: its current revision. Sub-selects in the select list cost nothing in a query that does not
-- name their columns.
CREATE VIEW v_materials AS
SELECT c.source,
       c.source_id,
       c.id AS crystal_id,
       r.id AS revision_id,
       c.material_key,
       r.formula,
       r.chemsys,
       r.elements,
       r.space_group_number,
       r.space_group_symbol,
       r.prototype,
       r.n_sites,
       r.volume,
       r.volume / r.n_sites AS volume_per_atom,
       /* property columns */
       ARRAY(
           SELECT preferred.property
           FROM (
               SELECT DISTINCT ON (v.property) v.property, v.suspect
               FROM property_values v
               JOIN levels_of_theory l ON l.name = v.level_of_theory
               WHERE v.revision_id = r.id
               ORDER BY v.property, l.preference, l.name
           ) preferred
           WHERE preferred.suspect
           ORDER BY preferred.property
       ) AS suspect,
       ARRAY(SELECT DISTINCT d.kind FROM densities d WHERE d.revision_id = r.id ORDER BY d.kind) AS density_kinds,
       ARRAY(
           SELECT DISTINCT i.name
           FROM slice_images s
           JOIN image_recipes i ON i.id = s.recipe_id
           WHERE s.revision_id = r.id
           ORDER BY i.name
       ) AS recipes,
       (SELECT t.text FROM descriptions t WHERE t.revision_id = r.id AND t.text_level = 'all') AS description
FROM crystals c
JOIN crystal_revisions r ON r.crystal_id = c.id AND r.is_current;

COMMENT ON VIEW v_materials IS 'crystals: one row for the current revision of each';
COMMENT ON COLUMN v_materials.source IS 'source of the crystal: sample, mp, or the name of a folder';
COMMENT ON COLUMN v_materials.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN v_materials.crystal_id IS 'id of the crystal in this registry; for the argument "within" of the similarity functions';
COMMENT ON COLUMN v_materials.revision_id IS 'current revision, to which property values, densities, images and texts refer';
COMMENT ON COLUMN v_materials.material_key IS 'key of the material, equal for one material under several sources';
COMMENT ON COLUMN v_materials.formula IS 'reduced formula';
COMMENT ON COLUMN v_materials.chemsys IS 'elements in alphabetical order, joined by ''-''';
COMMENT ON COLUMN v_materials.elements IS 'elements; ''O'' = ANY (elements), or elements @> ''{O,Mg}''';
COMMENT ON COLUMN v_materials.space_group_number IS 'space group, 1 to 230; null where only the formula is known';
COMMENT ON COLUMN v_materials.space_group_symbol IS 'space group, Hermann-Mauguin; null where only the formula is known';
COMMENT ON COLUMN v_materials.prototype IS 'anonymous formula, Pearson symbol and space group number, as AB-cF8-225';
COMMENT ON COLUMN v_materials.n_sites IS 'sites of the stored cell';
COMMENT ON COLUMN v_materials.volume IS 'volume of the stored cell [Å^3]';
COMMENT ON COLUMN v_materials.volume_per_atom IS 'volume of the stored cell per site [Å^3]';
COMMENT ON COLUMN v_materials.suspect IS 'properties with a value outside the plausible range';
COMMENT ON COLUMN v_materials.density_kinds IS 'kinds of charge density: total, spin, deformation';
COMMENT ON COLUMN v_materials.recipes IS 'image recipes of the slices of the crystal';
COMMENT ON COLUMN v_materials.description IS 'text of the text level ''all''; the table descriptions has the other text levels';
