//! Declarations, compared by what they mean to a caller.

use std::collections::{BTreeSet, HashMap};

use quote::{ToTokens, quote};
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Fields, FnArg, GenericParam, Generics, Ident, ImplItem, ItemImpl, ItemStruct,
    ItemTrait, Lifetime, Pat, Path, Receiver, Type, TypeReference, Visibility, WherePredicate,
    parse_quote,
};

/// A declaration.
///
/// Two are equal that differ only in the names of parameters, arguments and lifetimes, or in the
/// place and order of their bounds.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// As documented.
    pub(crate) text: String,
    normal: String,
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Signature {
    /// Of an item that has a page. `code` is `text` with full paths.
    pub(crate) fn of_item(kind: &str, text: String, code: &str) -> Self {
        let head = || code.split(['{', ';']).next().unwrap_or_default().trim();
        let normal = match kind {
            "fn" => normal(&format!("{code} {{}}")),
            "struct" if !code.contains('{') => normal(code),
            "struct" | "union" | "enum" | "trait" => normal(&format!("{} {{}}", head())),
            "constant" | "static" => normal(&format!("{} = ();", before_value(head()))),
            "type" => normal(&format!("{};", code.trim_end_matches(';'))),
            _ => None,
        };
        Self {
            normal: normal.unwrap_or_else(|| code.to_owned()),
            text,
        }
    }

    /// Of what stands within the braces of `block`, the head of an `impl` or `trait`.
    pub(crate) fn of_member(text: String, code: &str, block: &str) -> Self {
        let code = code.trim_end_matches([';', ' ']);
        let in_trait = !block.starts_with("impl") && !block.starts_with("unsafe impl");
        let member = if code.split(' ').any(|word| word == "fn") {
            format!("{code} {}", if in_trait { ";" } else { "{}" })
        } else if code.trim_start_matches("pub ").starts_with("const ") {
            let value = if in_trait { "" } else { " = ()" };
            format!("{}{value};", before_value(code))
        } else {
            format!("{code};")
        };
        Self {
            normal: normal(&format!("{block} {{ {member} }}")).unwrap_or_else(|| code.to_owned()),
            text,
        }
    }

    /// Of a variant or a field, for which its text will do.
    pub(crate) fn plain(text: String, code: String) -> Self {
        Self { text, normal: code }
    }

    /// Of an implementation, given its head and its associated types. With it comes what there can
    /// be only one implementation of, and the path of its trait.
    pub(crate) fn of_implementation(
        text: String,
        head: &str,
        types: &[String],
    ) -> (Self, String, Option<String>) {
        let types: String = types.iter().map(|t| format!("{t};")).collect();
        let Ok(mut file) = syn::parse_file(&format!("{head} {{ {types} }}")) else {
            let normal = head.to_owned();
            return (Self { text, normal }, head.to_owned(), None);
        };
        normalise(&mut file);
        let (key, of_trait) = match file.items.first() {
            Some(syn::Item::Impl(ItemImpl {
                trait_: Some((_, path, _)),
                self_ty,
                ..
            })) => (
                quote!(#path for #self_ty).to_string(),
                Some(without_arguments(path)),
            ),
            _ => (head.to_owned(), None),
        };
        let normal = file.to_token_stream().to_string();
        (Self { text, normal }, key, of_trait)
    }
}

/// A constant's value is its own business.
fn before_value(declaration: &str) -> &str {
    declaration.split(" = ").next().unwrap_or(declaration)
}

fn without_arguments(path: &Path) -> String {
    let names: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
    names.join("::")
}

fn normal(code: &str) -> Option<String> {
    let mut file = syn::parse_file(code).ok()?;
    normalise(&mut file);
    Some(file.to_token_stream().to_string())
}

fn normalise(file: &mut syn::File) {
    Unsaid.visit_file_mut(file);
    let mut parameters = Parameters::default();
    parameters.visit_file_mut(file);
    Elided(&parameters).visit_file_mut(file);
    Renamed(&parameters.named()).visit_file_mut(file);
    Bounds.visit_file_mut(file);
}

/// Takes away what a caller cannot tell: visibility (what is documented is public), most attributes,
/// private fields, the names of arguments, and whether a type calls itself `Self`.
struct Unsaid;

impl VisitMut for Unsaid {
    fn visit_visibility_mut(&mut self, visibility: &mut Visibility) {
        *visibility = Visibility::Inherited;
    }

    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        attributes.retain(|attribute| attribute.path().is_ident("non_exhaustive"));
    }

    fn visit_item_struct_mut(&mut self, item: &mut ItemStruct) {
        item.fields = Fields::Unit;
        item.semi_token = Some(Default::default());
        visit_mut::visit_item_struct_mut(self, item);
    }

    fn visit_fn_arg_mut(&mut self, argument: &mut FnArg) {
        if let FnArg::Typed(argument) = argument {
            *argument.pat = Pat::Verbatim(quote!(_));
        }
        visit_mut::visit_fn_arg_mut(self, argument);
    }

    fn visit_item_trait_mut(&mut self, item: &mut ItemTrait) {
        // What else a trait asks for is not a member's.
        if !item.items.is_empty() {
            item.supertraits.clear();
            item.colon_token = None;
        }
        visit_mut::visit_item_trait_mut(self, item);
    }

    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        visit_mut::visit_item_impl_mut(self, item);
        let mut own = Own(item.self_ty.to_token_stream().to_string());
        for member in &mut item.items {
            own.visit_impl_item_mut(member);
        }
    }
}

/// Writes `Self` for the type of these tokens.
struct Own(String);

impl VisitMut for Own {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if ty.to_token_stream().to_string() == self.0 {
            *ty = parse_quote!(Self);
        }
        visit_mut::visit_type_mut(self, ty);
    }
}

/// The generic parameters of a declaration and of its one member, in their order.
#[derive(Default)]
struct Parameters {
    types: Vec<String>,
    lifetimes: Vec<String>,
    bounded: BTreeSet<String>,
    /// How often a lifetime is named, its declaration included.
    named: HashMap<String, usize>,
}

impl VisitMut for Parameters {
    fn visit_generic_param_mut(&mut self, parameter: &mut GenericParam) {
        match parameter {
            GenericParam::Type(ty) => self.types.push(ty.ident.to_string()),
            GenericParam::Const(value) => self.types.push(value.ident.to_string()),
            GenericParam::Lifetime(lifetime) => {
                let name = lifetime.lifetime.to_string();
                if !lifetime.bounds.is_empty() {
                    self.bounded.insert(name.clone());
                }
                self.lifetimes.push(name);
            }
        }
        visit_mut::visit_generic_param_mut(self, parameter);
    }

    // Those of `for<'a>` are named nowhere else.
    fn visit_bound_lifetimes_mut(&mut self, _: &mut syn::BoundLifetimes) {}

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        *self.named.entry(lifetime.to_string()).or_default() += 1;
    }
}

impl Parameters {
    /// Whether `'_` would say the same.
    fn is_elidable(&self, lifetime: &str) -> bool {
        self.lifetimes.iter().any(|l| l == lifetime)
            && !self.bounded.contains(lifetime)
            && self.named.get(lifetime).is_some_and(|&times| times <= 2)
    }

    /// The names by position that are put in the place of the author's.
    fn named(&self) -> HashMap<String, String> {
        let types = (0..).zip(&self.types);
        let types = types.map(|(n, from)| (from.clone(), format!("T{n}")));
        let lifetimes = self.lifetimes.iter().filter(|l| !self.is_elidable(l));
        let lifetimes = (0..).zip(lifetimes);
        types
            .chain(lifetimes.map(|(n, from)| (from.clone(), format!("'l{n}"))))
            .collect()
    }
}

/// Writes nothing, or `'_`, for lifetimes that are used once.
struct Elided<'a>(&'a Parameters);

impl VisitMut for Elided<'_> {
    fn visit_generics_mut(&mut self, generics: &mut Generics) {
        let params = std::mem::take(&mut generics.params);
        generics.params = params
            .into_iter()
            .filter(|parameter| match parameter {
                GenericParam::Lifetime(l) => !self.0.is_elidable(&l.lifetime.to_string()),
                _ => true,
            })
            .collect();
        visit_mut::visit_generics_mut(self, generics);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if self.0.is_elidable(&lifetime.to_string()) {
            *lifetime = parse_quote!('_);
        }
    }

    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        visit_mut::visit_type_reference_mut(self, reference);
        reference.lifetime.take_if(|l| l.ident == "_");
    }

    fn visit_receiver_mut(&mut self, receiver: &mut Receiver) {
        visit_mut::visit_receiver_mut(self, receiver);
        if let Some((_, lifetime)) = &mut receiver.reference {
            lifetime.take_if(|l| l.ident == "_");
        }
    }
}

/// Gives parameters other names.
struct Renamed<'a>(&'a HashMap<String, String>);

impl Renamed<'_> {
    fn rename(&self, ident: &mut Ident) {
        if let Some(to) = self.0.get(&ident.to_string()) {
            *ident = Ident::new(to, ident.span());
        }
    }
}

impl VisitMut for Renamed<'_> {
    fn visit_type_param_mut(&mut self, parameter: &mut syn::TypeParam) {
        self.rename(&mut parameter.ident);
        visit_mut::visit_type_param_mut(self, parameter);
    }

    fn visit_const_param_mut(&mut self, parameter: &mut syn::ConstParam) {
        self.rename(&mut parameter.ident);
        visit_mut::visit_const_param_mut(self, parameter);
    }

    fn visit_path_mut(&mut self, path: &mut Path) {
        if let Some(first) = path.segments.first_mut() {
            self.rename(&mut first.ident);
        }
        visit_mut::visit_path_mut(self, path);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if let Some(to) = self.0.get(&lifetime.to_string()) {
            *lifetime = Lifetime::new(to, lifetime.span());
        }
    }
}

/// Moves each bound into a predicate of its own, and sorts the predicates. Moves the bounds of an `impl`
/// block with a single method to that method.
struct Bounds;

impl VisitMut for Bounds {
    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        let mut predicates = taken(&mut item.generics);
        match (&item.trait_, item.items.as_mut_slice()) {
            (None, [ImplItem::Fn(method)]) => {
                predicates.extend(taken(&mut method.sig.generics));
                put(predicates, &mut method.sig.generics);
            }
            // rustdoc has the bounds of one like `!Send` only where somebody has written it.
            (Some((Some(_), ..)), _) => {}
            _ => put(predicates, &mut item.generics),
        }
    }

    fn visit_generics_mut(&mut self, generics: &mut Generics) {
        let predicates = taken(generics);
        put(predicates, generics);
    }
}

/// Removes all bounds from `generics`. Returns them as predicates with one bound each.
fn taken(generics: &mut Generics) -> BTreeSet<String> {
    let mut predicates = BTreeSet::new();
    for parameter in &mut generics.params {
        match parameter {
            GenericParam::Type(ty) => {
                let name = &ty.ident;
                for bound in &ty.bounds {
                    predicates.insert(quote!(#name: #bound).to_string());
                }
                ty.bounds.clear();
                ty.colon_token = None;
                ty.default = None;
                ty.eq_token = None;
            }
            GenericParam::Lifetime(lifetime) => {
                let name = &lifetime.lifetime;
                for bound in &lifetime.bounds {
                    predicates.insert(quote!(#name: #bound).to_string());
                }
                lifetime.bounds.clear();
                lifetime.colon_token = None;
            }
            GenericParam::Const(_) => {}
        }
    }
    let clause = generics.where_clause.take();
    for predicate in clause.into_iter().flat_map(|clause| clause.predicates) {
        match predicate {
            WherePredicate::Type(p) => {
                let (lifetimes, ty) = (&p.lifetimes, &p.bounded_ty);
                for bound in &p.bounds {
                    predicates.insert(quote!(#lifetimes #ty: #bound).to_string());
                }
            }
            WherePredicate::Lifetime(p) => {
                let name = &p.lifetime;
                for bound in &p.bounds {
                    predicates.insert(quote!(#name: #bound).to_string());
                }
            }
            _ => {}
        }
    }
    predicates
}

fn put(mut predicates: BTreeSet<String>, generics: &mut Generics) {
    // A method may ask for what its block does without, and then has what any parameter has.
    for maybe in predicates.clone() {
        if let Some((name, bound)) = maybe.split_once(" : ?")
            && predicates.remove(&format!("{name} : {}", bound.trim_start()))
        {
            predicates.remove(&maybe);
        }
    }
    if predicates.is_empty() {
        return;
    }
    generics.make_where_clause().predicates = predicates
        .iter()
        .filter_map(|predicate| syn::parse_str::<WherePredicate>(predicate).ok())
        .collect();
}
