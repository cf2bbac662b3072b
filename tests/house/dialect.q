# How this tree writes what C allows to write in several ways. lint.sh runs it over every source.
set output diag
set bind-root false

# "null": a pointer stands where a question is asked, and no NULL is in sight.
let pointer expr(hasType(hasCanonicalType(pointerType())))
# What jansson.h writes in its macros is its own affair.
let jansson expr(anyOf(isExpandedFromMacro("json_is_object"), isExpandedFromMacro("json_is_array"), isExpandedFromMacro("json_is_string"), isExpandedFromMacro("json_is_integer"), isExpandedFromMacro("json_is_real"), isExpandedFromMacro("json_is_number"), isExpandedFromMacro("json_is_true"), isExpandedFromMacro("json_is_false"), isExpandedFromMacro("json_is_boolean"), isExpandedFromMacro("json_is_null"), isExpandedFromMacro("json_object_foreach"), isExpandedFromMacro("json_object_foreach_safe"), isExpandedFromMacro("json_array_foreach")))
let asked expr(unless(jansson), ignoringParens(expr(pointer).bind("null")))
match unaryOperator(unless(isExpansionInSystemHeader()), hasOperatorName("!"), hasUnaryOperand(asked))
match binaryOperator(unless(isExpansionInSystemHeader()), hasAnyOperatorName("&&", "||"), hasLHS(asked))
match binaryOperator(unless(isExpansionInSystemHeader()), hasAnyOperatorName("&&", "||"), hasRHS(asked))
match ifStmt(unless(isExpansionInSystemHeader()), hasCondition(asked))
match whileStmt(unless(isExpansionInSystemHeader()), hasCondition(asked))
match doStmt(unless(isExpansionInSystemHeader()), hasCondition(asked))
match forStmt(unless(isExpansionInSystemHeader()), hasCondition(asked))
match conditionalOperator(unless(isExpansionInSystemHeader()), hasCondition(asked))
match implicitCastExpr(unless(isExpansionInSystemHeader()), hasCastKind("CK_PointerToBoolean"), hasSourceExpression(asked))

# "const": a local, neither pointer nor array, that is set where it is declared and then only read.
# Names with two underscores are those of macros of the system.
let value implicitCastExpr(hasCastKind("CK_LValueToRValue"))
let read anyOf(hasParent(value), hasParent(memberExpr(hasParent(value))), hasParent(memberExpr(hasParent(memberExpr(hasParent(value))))), hasParent(parenExpr(hasParent(value))))
match varDecl(unless(isExpansionInSystemHeader()), unless(matchesName("__")), hasLocalStorage(), unless(parmVarDecl()), hasInitializer(anything()), hasParent(declStmt(hasSingleDecl(decl()))), unless(hasType(pointsTo(qualType()))), unless(hasType(arrayType())), unless(hasType(isConstQualified())), decl().bind("const"), hasAncestor(functionDecl(unless(hasDescendant(declRefExpr(to(varDecl(equalsBoundNode("const"))), unless(read)))))))
