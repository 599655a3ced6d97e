/*
 * Changes rows without the executor, as extensions may: what the hooks cannot see and completeness has to find.
 * Built by tests/tests/completeness.rs.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bypass_update);
PG_FUNCTION_INFO_V1(bypass_delete);

static HeapTuple
first_row(Relation rel, TableScanDesc scan)
{
	return heap_getnext(scan, ForwardScanDirection);
}

/* bypass_update(table regclass, column int, value int): changes a column that no index has, in the first row */
Datum
bypass_update(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	HeapTuple	old = first_row(rel, scan);
	Datum		values[MaxHeapAttributeNumber] = {0};
	bool		nulls[MaxHeapAttributeNumber] = {0};
	bool		replace[MaxHeapAttributeNumber] = {0};
	int			column = PG_GETARG_INT32(1) - 1;
	HeapTuple	new;

	if (old == NULL)
		elog(ERROR, "the table is empty");
	values[column] = Int32GetDatum(PG_GETARG_INT32(2));
	replace[column] = true;
	new = heap_modify_tuple(old, RelationGetDescr(rel), values, nulls, replace);
#if PG_VERSION_NUM >= 160000
	{
		TU_UpdateIndexes update_indexes;

		simple_heap_update(rel, &old->t_self, new, &update_indexes);
	}
#else
	simple_heap_update(rel, &old->t_self, new);
#endif
	table_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/* bypass_delete(table regclass): deletes the first row */
Datum
bypass_delete(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	HeapTuple	old = first_row(rel, scan);

	if (old == NULL)
		elog(ERROR, "the table is empty");
	simple_heap_delete(rel, &old->t_self);
	table_endscan(scan);
	table_close(rel, NoLock);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}
